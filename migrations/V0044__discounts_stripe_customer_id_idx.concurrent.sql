-- A subscription without discounts of its own has those of its customer.
CREATE INDEX CONCURRENTLY IF NOT EXISTS discounts_stripe_customer_id_idx ON discounts (stripe_customer_id)
    WHERE stripe_subscription_id IS NULL;
