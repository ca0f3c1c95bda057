-- What Stripe says: the events as they came, and the objects as their newest snapshots show them.
-- Columns holding Stripe's own words accept words we do not know. There are no foreign keys: a
-- parent may arrive after its child, and links are resolved by whichever comes second.

CREATE TABLE stripe_events (
    event_id TEXT CONSTRAINT stripe_events_pkey PRIMARY KEY,    -- evt_…; what makes a delivery a duplicate
    type TEXT NOT NULL,                                         -- Stripe's event type
    api_version TEXT,                                           -- the shape the payload is in
    livemode BOOLEAN,                                           -- NULL where the event does not say
    account TEXT,                                               -- acct_… for Connect
    object_id TEXT,                                             -- data.object.id
    created_at TIMESTAMPTZ,                                     -- Stripe's created
    payload JSONB NOT NULL,                                     -- the whole event
    received_at TIMESTAMPTZ NOT NULL DEFAULT now(),             -- when it came in
    outcome TEXT NOT NULL CONSTRAINT stripe_events_outcome_check
        CHECK (outcome IN ('applied', 'ignored', 'failed')),    -- what became of it
    error TEXT                                                  -- why it failed
);
CREATE INDEX stripe_events_object_id_created_at_idx ON stripe_events (object_id, created_at);
CREATE INDEX stripe_events_outcome_created_at_idx ON stripe_events (outcome, created_at);

CREATE TABLE customers (
    stripe_customer_id TEXT CONSTRAINT customers_pkey PRIMARY KEY, -- cus_…
    user_id INT,                                                -- users.id; NULL until known
    email TEXT,                                                 -- as at Stripe
    name TEXT,                                                  -- as at Stripe
    currency TEXT,                                              -- the customer's default
    delinquent BOOLEAN,                                         -- as at Stripe
    deleted_at TIMESTAMPTZ,                                     -- deleted at Stripe
    metadata JSONB NOT NULL DEFAULT '{}',                       -- Stripe's
    user_link_rank INT NOT NULL DEFAULT 0,                      -- strength of the best evidence of the user
    user_link_at TIMESTAMPTZ,                                   -- time of that evidence
    user_link_event_id TEXT,                                    -- event of that evidence
    user_link_user_id INT,                                      -- the user it names
    user_link_filled BOOLEAN NOT NULL DEFAULT false,            -- users.stripe_customer_id was filled by us
    created_at TIMESTAMPTZ,                                     -- Stripe's created; NULL = only named so far
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX customers_user_id_idx ON customers (user_id);

CREATE TABLE checkout_sessions (
    stripe_checkout_session_id TEXT CONSTRAINT checkout_sessions_pkey PRIMARY KEY, -- cs_…
    stripe_customer_id TEXT,                                    -- cus_…
    stripe_subscription_id TEXT,                                -- sub_…
    stripe_payment_intent_id TEXT,                              -- pi_…
    stripe_invoice_id TEXT,                                     -- in_…
    user_id INT,                                                -- client_reference_id or metadata.user_id
    plan_name TEXT,                                             -- metadata.plan
    mode TEXT,                                                  -- payment, setup, subscription
    status TEXT,                                                -- Stripe's word
    payment_status TEXT,                                        -- Stripe's word
    metadata JSONB NOT NULL DEFAULT '{}',                       -- Stripe's
    created_at TIMESTAMPTZ,                                     -- Stripe's created
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX checkout_sessions_stripe_customer_id_idx ON checkout_sessions (stripe_customer_id);
CREATE INDEX checkout_sessions_stripe_subscription_id_idx ON checkout_sessions (stripe_subscription_id);

CREATE TABLE credit_notes (
    stripe_credit_note_id TEXT CONSTRAINT credit_notes_pkey PRIMARY KEY, -- cn_…
    stripe_invoice_id TEXT,                                     -- in_…
    stripe_customer_id TEXT,                                    -- cus_…
    amount_cents BIGINT NOT NULL,                               -- total, minor units of currency
    pre_payment_cents BIGINT,                                   -- the part that lowered what was due
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    status TEXT,                                                -- Stripe's word
    reason TEXT,                                                -- Stripe's word
    voided_at TIMESTAMPTZ,                                      -- taken back
    created_at TIMESTAMPTZ,                                     -- Stripe's created
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX credit_notes_stripe_invoice_id_idx ON credit_notes (stripe_invoice_id);

CREATE TABLE payment_intents (
    stripe_payment_intent_id TEXT CONSTRAINT payment_intents_pkey PRIMARY KEY, -- pi_…
    stripe_customer_id TEXT,                                    -- cus_…
    amount_cents BIGINT NOT NULL,                               -- minor units of currency
    amount_received_cents BIGINT,                               -- captured so far
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    status TEXT NOT NULL,                                       -- Stripe's word
    latest_charge_id TEXT,                                      -- ch_… or py_…
    stripe_invoice_id TEXT,                                     -- in_…, where the shape names it
    payment_method TEXT,                                        -- kind of method
    failure_code TEXT,                                          -- last_payment_error.code
    decline_code TEXT,                                          -- last_payment_error.decline_code
    failure_message TEXT,                                       -- last_payment_error.message
    succeeded_at TIMESTAMPTZ,                                   -- earliest event that shows the success
    canceled_at TIMESTAMPTZ,                                    -- as at Stripe
    user_id INT,                                                -- metadata.user_id
    created_at TIMESTAMPTZ,                                     -- Stripe's created
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX payment_intents_latest_charge_id_idx ON payment_intents (latest_charge_id);
CREATE INDEX payment_intents_stripe_customer_id_idx ON payment_intents (stripe_customer_id);

CREATE TABLE payment_attempts (
    stripe_charge_id TEXT CONSTRAINT payment_attempts_pkey PRIMARY KEY, -- ch_… or py_…
    stripe_payment_intent_id TEXT,                              -- pi_…
    stripe_customer_id TEXT,                                    -- cus_…
    stripe_invoice_id TEXT,                                     -- in_…, where the shape names it
    amount_cents BIGINT NOT NULL,                               -- asked for, minor units of currency
    amount_captured_cents BIGINT NOT NULL,                      -- taken
    refund_totals JSONB NOT NULL DEFAULT '{}',                  -- {"<unix second>": amount_refunded then}
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    status TEXT NOT NULL,                                       -- Stripe's word
    captured BOOLEAN NOT NULL DEFAULT false,                    -- whether the money was taken
    failure_code TEXT,                                          -- Stripe's
    decline_code TEXT,                                          -- the issuer's reason
    failure_message TEXT,                                       -- in words
    payment_method TEXT,                                        -- kind of method
    attempted_at TIMESTAMPTZ NOT NULL,                          -- Stripe's created
    succeeded_at TIMESTAMPTZ,                                   -- earliest event that shows the capture
    stripe_balance_transaction_id TEXT,                         -- txn_…
    settlement_currency TEXT,                                   -- of the account's balance
    settlement_amount_cents BIGINT,                             -- in settlement_currency
    settlement_fee_cents BIGINT,                                -- in settlement_currency
    exchange_rate TEXT,                                         -- decimal, as Stripe printed it
    user_id INT,                                                -- metadata.user_id
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX payment_attempts_stripe_payment_intent_id_idx ON payment_attempts (stripe_payment_intent_id);
CREATE INDEX payment_attempts_stripe_balance_transaction_id_idx ON payment_attempts (stripe_balance_transaction_id);
CREATE INDEX payment_attempts_stripe_invoice_id_idx ON payment_attempts (stripe_invoice_id);
CREATE INDEX payment_attempts_stripe_customer_id_idx ON payment_attempts (stripe_customer_id);
CREATE INDEX payment_attempts_attempted_at_idx ON payment_attempts (attempted_at);

CREATE TABLE refunds (
    stripe_refund_id TEXT CONSTRAINT refunds_pkey PRIMARY KEY,  -- re_…
    stripe_charge_id TEXT,                                      -- ch_… or py_…
    stripe_payment_intent_id TEXT,                              -- pi_…
    amount_cents BIGINT NOT NULL,                               -- minor units of currency
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    reason TEXT,                                                -- Stripe's word
    status TEXT NOT NULL,                                       -- Stripe's word; failed and canceled count nowhere
    stripe_balance_transaction_id TEXT,                         -- txn_…
    metadata JSONB NOT NULL DEFAULT '{}',                       -- Stripe's
    created_at TIMESTAMPTZ NOT NULL,                            -- Stripe's created
    failed_at TIMESTAMPTZ,                                      -- earliest event that shows the failure
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX refunds_stripe_charge_id_idx ON refunds (stripe_charge_id);
CREATE INDEX refunds_stripe_payment_intent_id_idx ON refunds (stripe_payment_intent_id);
CREATE INDEX refunds_created_at_idx ON refunds (created_at);

CREATE TABLE disputes (
    stripe_dispute_id TEXT CONSTRAINT disputes_pkey PRIMARY KEY, -- dp_… or du_…
    stripe_charge_id TEXT,                                      -- ch_… or py_…
    stripe_payment_intent_id TEXT,                              -- pi_…
    amount_cents BIGINT NOT NULL,                               -- minor units of currency
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    reason TEXT,                                                -- Stripe's word
    status TEXT NOT NULL,                                       -- Stripe's word
    fee_cents BIGINT NOT NULL DEFAULT 0,                        -- Stripe's fee for the dispute
    balance_transactions JSONB NOT NULL DEFAULT '{}',           -- {"txn_…": {amount_cents, fee_cents, currency}}
    funds_withdrawn_at TIMESTAMPTZ,                             -- when the money went
    funds_reinstated_at TIMESTAMPTZ,                            -- when it came back
    evidence_due_by TIMESTAMPTZ,                                -- last moment to answer
    closed_at TIMESTAMPTZ,                                      -- when it was decided
    created_at TIMESTAMPTZ NOT NULL,                            -- Stripe's created
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX disputes_stripe_charge_id_idx ON disputes (stripe_charge_id);
CREATE INDEX disputes_stripe_payment_intent_id_idx ON disputes (stripe_payment_intent_id);
CREATE INDEX disputes_created_at_idx ON disputes (created_at);

CREATE TABLE invoice_payments (
    link_key TEXT CONSTRAINT invoice_payments_pkey PRIMARY KEY, -- '<in_…>:<pi_… or ch_…>'
    stripe_invoice_payment_id TEXT,                             -- inpay_…, from basil on
    stripe_customer_id TEXT,                                    -- cus_…
    stripe_invoice_id TEXT NOT NULL,                            -- in_…
    stripe_payment_intent_id TEXT,                              -- pi_…, or
    stripe_charge_id TEXT,                                      -- ch_…
    amount_paid_cents BIGINT,                                   -- minor units of currency
    currency TEXT,                                              -- ISO 4217, upper case
    status TEXT,                                                -- Stripe's word
    paid_at TIMESTAMPTZ,                                        -- as at Stripe
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX invoice_payments_stripe_invoice_id_idx ON invoice_payments (stripe_invoice_id);
CREATE INDEX invoice_payments_stripe_payment_intent_id_idx ON invoice_payments (stripe_payment_intent_id);
CREATE INDEX invoice_payments_stripe_charge_id_idx ON invoice_payments (stripe_charge_id);

CREATE TABLE prices (
    stripe_price_id TEXT CONSTRAINT prices_pkey PRIMARY KEY,    -- price_… or the id of an old plan
    stripe_product_id TEXT,                                     -- prod_…
    currency TEXT,                                              -- ISO 4217, upper case
    unit_amount_decimal TEXT,                                   -- minor units, may have decimals
    billing_scheme TEXT,                                        -- per_unit, tiered
    tiers JSONB,                                                -- NULL until known
    tiers_mode TEXT,                                            -- graduated, volume
    transform_quantity JSONB,                                   -- {divide_by, round}
    recurring_interval TEXT,                                    -- day, week, month, year; NULL = one-off
    interval_count INT,                                         -- every so many intervals
    usage_type TEXT,                                            -- licensed, metered
    lookup_key TEXT,                                            -- may name the plan
    nickname TEXT,                                              -- may name the plan
    metadata JSONB NOT NULL DEFAULT '{}',                       -- Stripe's; `plan` names the plan
    active BOOLEAN,                                             -- as at Stripe
    deleted_at TIMESTAMPTZ,                                     -- deleted at Stripe
    created_at TIMESTAMPTZ,                                     -- Stripe's created
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);

CREATE TABLE coupons (
    stripe_coupon_id TEXT CONSTRAINT coupons_pkey PRIMARY KEY,  -- as at Stripe
    percent_off TEXT,                                           -- decimal
    amount_off_cents BIGINT,                                    -- minor units of currency
    currency TEXT,                                              -- of amount_off_cents
    duration TEXT,                                              -- once, repeating, forever
    duration_in_months INT,                                     -- of a repeating one
    deleted_at TIMESTAMPTZ,                                     -- deleted at Stripe
    created_at TIMESTAMPTZ,                                     -- Stripe's created
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);

CREATE TABLE discounts (
    stripe_discount_id TEXT CONSTRAINT discounts_pkey PRIMARY KEY, -- di_…
    stripe_coupon_id TEXT,                                      -- the coupon behind it
    stripe_customer_id TEXT,                                    -- cus_…
    stripe_subscription_id TEXT,                                -- sub_…, when of one subscription only
    ended_at TIMESTAMPTZ,                                       -- when it stops
    created_at TIMESTAMPTZ,                                     -- Stripe's start
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX discounts_stripe_coupon_id_idx ON discounts (stripe_coupon_id);
CREATE INDEX discounts_stripe_customer_id_idx ON discounts (stripe_customer_id);
CREATE INDEX discounts_stripe_subscription_id_idx ON discounts (stripe_subscription_id);

CREATE TABLE plan_prices (
    stripe_price_id TEXT CONSTRAINT plan_prices_pkey PRIMARY KEY, -- set by the operator
    plan_name TEXT NOT NULL                                     -- as in plan_limits
);

CREATE TABLE stripe_lookups (
    id BIGSERIAL CONSTRAINT stripe_lookups_pkey PRIMARY KEY,    -- surrogate
    kind TEXT NOT NULL,                                         -- what to fetch
    stripe_id TEXT NOT NULL,                                    -- of which object
    reason TEXT NOT NULL,                                       -- what is missing without it
    requested_at TIMESTAMPTZ NOT NULL DEFAULT now(),            -- when an event asked for it
    done_at TIMESTAMPTZ,                                        -- fetched and applied; NULL = open
    attempts INT NOT NULL DEFAULT 0,                            -- so far
    next_attempt_at TIMESTAMPTZ,                                -- not before; NULL = now
    last_error TEXT                                             -- of the last attempt
);
CREATE UNIQUE INDEX stripe_lookups_open_key ON stripe_lookups (kind, stripe_id, reason) WHERE done_at IS NULL;
CREATE INDEX stripe_lookups_due_idx ON stripe_lookups (next_attempt_at, id) WHERE done_at IS NULL;
