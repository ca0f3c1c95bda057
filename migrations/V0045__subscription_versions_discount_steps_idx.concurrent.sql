-- The customers whom a discount profile treats in its own way.
CREATE INDEX CONCURRENTLY IF NOT EXISTS subscription_versions_discount_steps_idx
    ON subscription_versions (stripe_customer_id) WHERE discount_steps IS NOT NULL;
