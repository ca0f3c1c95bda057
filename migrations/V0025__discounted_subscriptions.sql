-- The customers whom a discount profile of the MRR bridge treats in its own way, found without
-- reading the history of all others. Columns of their own, because Postgres cannot tell from a
-- comparison of two columns how few they are.

ALTER TABLE subscription_versions
    ADD COLUMN all_discounts_differ BOOLEAN GENERATED ALWAYS AS
        (all_discounts_microcents <> potential_mrr_microcents) STORED, -- NULL when not kept for the snapshot
    ADD COLUMN no_discounts_differ BOOLEAN GENERATED ALWAYS AS
        (no_discounts_microcents <> potential_mrr_microcents) STORED; -- NULL when not kept for the snapshot
CREATE INDEX subscription_versions_all_discounts_differ_idx ON subscription_versions (stripe_customer_id)
    WHERE all_discounts_differ;
CREATE INDEX subscription_versions_no_discounts_differ_idx ON subscription_versions (stripe_customer_id)
    WHERE no_discounts_differ;
