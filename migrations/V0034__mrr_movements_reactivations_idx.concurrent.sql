-- Who came back in a window, and when and with what they had left.
CREATE INDEX CONCURRENTLY IF NOT EXISTS mrr_movements_reactivations_idx ON mrr_movements (currency, occurred_at)
    INCLUDE (churned_at, churned_microcents, stripe_customer_id) WHERE kind = 'reactivation';
