-- What decides how much a discount takes off, and when: the products a coupon is for, its amounts in other currencies, the
-- discounts a subscription has from its customer, and what changes without an event as discounts start and end.

ALTER TABLE coupons
    ADD COLUMN applies_to TEXT[],               -- products it reduces, {} = all; NULL = nobody has shown them
    ADD COLUMN currency_options JSONB;          -- {currency: minor units}; NULL = nobody has shown them

ALTER TABLE subscriptions
    ADD COLUMN inherited_discounts JSONB;       -- its customer's, as in discounts; NULL = the customer is not known

ALTER TABLE subscription_versions
    ADD COLUMN discount_steps JSONB;            -- [{at, mrr_microcents, …}] after the snapshot; NULL = none
