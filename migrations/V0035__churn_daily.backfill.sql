-- The rows are locked before their movements are summed: what is written meanwhile waits, and is added to the sum then.
-- No index finds those that are left: there is one row a day and currency.
UPDATE mrr_daily SET churned_microcents = billing_churned_on(day, currency)
WHERE (day, currency) IN (
    SELECT day, currency FROM mrr_daily WHERE churned_microcents IS NULL ORDER BY day, currency LIMIT $1 FOR UPDATE);
