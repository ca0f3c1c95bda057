-- What a snapshot of a subscription waits for, so that a price or coupon that becomes known
-- touches the customers that wait for it and no others; the plan each snapshot names; the plan a
-- user had before the bundle first wrote it.

ALTER TABLE subscription_versions
    ADD COLUMN waits_for TEXT[] NOT NULL DEFAULT '{}', -- ids of prices, coupons and discounts it names and nothing has explained; '*' = any
    ADD COLUMN plan_name TEXT;                         -- the plan this snapshot itself names; NULL = none
UPDATE subscription_versions SET waits_for = '{*}' WHERE mrr_provisional;
CREATE INDEX subscription_versions_waits_for_idx ON subscription_versions USING gin (waits_for)
    WHERE waits_for <> '{}';

CREATE TABLE user_plans (
    user_id INT CONSTRAINT user_plans_pkey PRIMARY KEY, -- users.id; no foreign key: the host owns the users
    plan_before TEXT,                                  -- users.plan when the bundle first wrote it, or what the host wrote since
    plan_set TEXT NOT NULL                             -- what the bundle wrote last
);

ALTER TABLE credits ADD COLUMN stripe_customer_id TEXT; -- whose payment was refunded as credit
CREATE INDEX credits_stripe_customer_id_idx ON credits (stripe_customer_id)
    WHERE stripe_customer_id IS NOT NULL;

-- Events look their customer up in the host's users, however many there are.
CREATE INDEX IF NOT EXISTS users_stripe_customer_id_idx ON users (stripe_customer_id);
