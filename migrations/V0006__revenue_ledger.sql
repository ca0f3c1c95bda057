-- Revenue: what came in per day, and how recurring revenue moved.

CREATE TABLE revenue_entries (
    payment_key TEXT NOT NULL,                                  -- payment_history.payment_key
    kind TEXT NOT NULL CONSTRAINT revenue_entries_kind_check CHECK (kind IN
        ('gross', 'fee', 'refund', 'dispute', 'dispute_reinstated', 'dispute_fee', 'dispute_fee_reinstated',
         'failed')),                                            -- which figure of revenue_daily it adds to
    source_id TEXT NOT NULL,                                    -- the charge, refund, dispute or invoice behind it
    day DATE NOT NULL,                                          -- UTC
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    amount_cents BIGINT NOT NULL,                               -- added to the figure; reinstatements are negative
    is_estimated BOOLEAN NOT NULL DEFAULT false,                -- a fee Stripe has not named yet
    CONSTRAINT revenue_entries_pkey PRIMARY KEY (payment_key, kind, source_id)
);
CREATE INDEX revenue_entries_day_currency_idx ON revenue_entries (day, currency);

CREATE TABLE revenue_daily (
    day DATE NOT NULL,                                          -- UTC
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    gross_cents BIGINT NOT NULL DEFAULT 0,                      -- captured
    fees_cents BIGINT NOT NULL DEFAULT 0,                       -- of payments and disputes
    refunds_cents BIGINT NOT NULL DEFAULT 0,                    -- by the refund's date
    disputes_cents BIGINT NOT NULL DEFAULT 0,                   -- withdrawn less reinstated
    payments BIGINT NOT NULL DEFAULT 0,                         -- number of payments in gross_cents
    failed_payments BIGINT NOT NULL DEFAULT 0,                  -- number of failed attempts
    estimated_fees BIGINT NOT NULL DEFAULT 0,                   -- number of payments whose fee is an estimate
    CONSTRAINT revenue_daily_pkey PRIMARY KEY (day, currency)
);

CREATE TABLE subscription_versions (
    stripe_subscription_id TEXT NOT NULL,                       -- sub_…, or 'legacy:<id>' of the predecessor
    source_event_id TEXT NOT NULL,                              -- the event; '' for what the predecessor knew
    stripe_customer_id TEXT NOT NULL,                           -- cus_…, or 'user:<id>' of the predecessor
    currency TEXT,                                              -- ISO 4217, upper case; NULL until known
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    occurred_at TIMESTAMPTZ NOT NULL,                           -- event time, or the end of an ended one
    status TEXT NOT NULL,                                       -- Stripe's word
    mrr_microcents BIGINT NOT NULL DEFAULT 0,                   -- as in subscriptions, at that event
    potential_mrr_microcents BIGINT NOT NULL DEFAULT 0,         -- as in subscriptions, at that event
    mrr_provisional BOOLEAN NOT NULL DEFAULT false,             -- as in subscriptions, at that event
    overruled BOOLEAN NOT NULL DEFAULT false,                   -- another snapshot of the same second came after
    CONSTRAINT subscription_versions_pkey PRIMARY KEY (stripe_subscription_id, source_event_id)
);
CREATE INDEX subscription_versions_stripe_customer_id_idx ON subscription_versions (stripe_customer_id);

CREATE TABLE mrr_movements (
    id BIGSERIAL CONSTRAINT mrr_movements_pkey PRIMARY KEY,     -- surrogate
    occurred_at TIMESTAMPTZ NOT NULL,                           -- when recurring revenue changed
    stripe_customer_id TEXT NOT NULL,                           -- whose
    stripe_subscription_id TEXT,                                -- the subscription that moved most
    kind TEXT NOT NULL CONSTRAINT mrr_movements_kind_check
        CHECK (kind IN ('new', 'expansion', 'contraction', 'churn', 'reactivation')), -- which way
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    delta_microcents BIGINT NOT NULL CONSTRAINT mrr_movements_delta_check
        CHECK (delta_microcents <> 0),                          -- after − before
    before_microcents BIGINT NOT NULL,                          -- the customer's, in this currency
    after_microcents BIGINT NOT NULL,                           -- the customer's, in this currency
    cause_event_id TEXT NOT NULL,                               -- the event; '' for what the predecessor knew
    CONSTRAINT mrr_movements_customer_currency_instant_key UNIQUE (stripe_customer_id, currency, occurred_at)
);
CREATE INDEX mrr_movements_occurred_at_currency_idx
    ON mrr_movements (occurred_at, currency) INCLUDE (kind, delta_microcents, stripe_customer_id);

-- What `GET /admin/revenue` sums at every call: small as long as few subscriptions are running.
CREATE INDEX subscriptions_counted_idx
    ON subscriptions (currency, status) INCLUDE (mrr_microcents) WHERE NOT superseded;

CREATE TABLE fx_rates (
    day DATE NOT NULL,                                          -- UTC
    currency TEXT NOT NULL,                                     -- converted from
    reporting_currency TEXT NOT NULL,                           -- converted into
    rate TEXT NOT NULL,                                         -- decimal: major units of reporting_currency per one of currency
    source TEXT,                                                -- where the rate is from
    CONSTRAINT fx_rates_pkey PRIMARY KEY (day, currency, reporting_currency)
);
