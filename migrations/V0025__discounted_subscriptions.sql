-- The customers whom a discount profile of the MRR bridge treats in its own way, found without
-- reading the history of all others.

CREATE INDEX subscription_versions_all_discounts_idx ON subscription_versions (stripe_customer_id)
    WHERE all_discounts_microcents <> potential_mrr_microcents;
CREATE INDEX subscription_versions_no_discounts_idx ON subscription_versions (stripe_customer_id)
    WHERE no_discounts_microcents <> potential_mrr_microcents;
