-- Stripe's balance: what moved it, what was paid out of it, and the tax rates that invoices name. All of these tables are
-- new, so that their indexes keep nobody waiting.

CREATE TABLE balance_transactions (
    stripe_balance_transaction_id TEXT CONSTRAINT balance_transactions_pkey PRIMARY KEY, -- txn_…
    type TEXT NOT NULL,                                         -- Stripe's word
    reporting_category TEXT NOT NULL,                           -- Stripe's word; of older versions, by the type
    balance_type TEXT NOT NULL,                                 -- which of the account's balances; Stripe's word
    currency TEXT NOT NULL,                                     -- of the balance: ISO 4217, upper case
    amount_cents BIGINT NOT NULL,                               -- before the fee, minor units; negative went out
    fee_cents BIGINT NOT NULL,                                  -- minor units of currency
    net_cents BIGINT NOT NULL CONSTRAINT balance_transactions_net_check
        CHECK (net_cents = amount_cents - fee_cents),           -- the amount less the fee
    fee_details JSONB,                                          -- what the fee is made of, as at Stripe
    exchange_rate TEXT,                                         -- decimal, as Stripe printed it; NULL without a conversion
    source_id TEXT,                                             -- the object that moved it; NULL without one
    source_kind TEXT,                                           -- charge, charge_failure, refund, refund_failure, dispute; NULL for others
    payment_key TEXT,                                           -- payment_history.payment_key; NULL of no payment
    description TEXT,                                           -- as at Stripe
    created_at TIMESTAMPTZ NOT NULL,                            -- Stripe's created
    available_at TIMESTAMPTZ,                                   -- when its money may be paid out
    stripe_payout_id TEXT,                                      -- po_…; NULL until that payout's have been listed
    partial TEXT[] NOT NULL DEFAULT '{}',                       -- what the row does not show, sorted
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX balance_transactions_source_id_idx ON balance_transactions (source_id);
CREATE INDEX balance_transactions_payment_key_idx ON balance_transactions (payment_key);
CREATE INDEX balance_transactions_created_at_idx ON balance_transactions (created_at);
CREATE INDEX balance_transactions_stripe_payout_id_idx ON balance_transactions (stripe_payout_id);

CREATE TABLE payouts (
    stripe_payout_id TEXT CONSTRAINT payouts_pkey PRIMARY KEY,  -- po_…
    amount_cents BIGINT NOT NULL,                               -- minor units of currency
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    status TEXT NOT NULL,                                       -- Stripe's word
    automatic BOOLEAN NOT NULL,                                 -- made by Stripe of what was available
    method TEXT,                                                -- standard, instant
    arrival_on DATE,                                            -- UTC; when the bank is to have it
    trace_id TEXT,                                              -- what the banks know it by
    reconciliation_status TEXT,                                 -- whether Stripe has assigned its transactions
    stripe_balance_transaction_id TEXT,                         -- txn_…
    failure_balance_transaction_id TEXT,                        -- txn_… that brought a failed one back
    failure_code TEXT,                                          -- Stripe's word
    created_at TIMESTAMPTZ NOT NULL,                            -- Stripe's created
    transactions_listed_at TIMESTAMPTZ,                         -- when its transactions were listed whole; NULL until then
    partial TEXT[] NOT NULL DEFAULT '{}',                       -- what the row does not show, sorted
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX payouts_created_at_idx ON payouts (created_at);

CREATE TABLE tax_rates (
    stripe_tax_rate_id TEXT CONSTRAINT tax_rates_pkey PRIMARY KEY, -- txr_…
    display_name TEXT,                                          -- as at Stripe
    percentage TEXT,                                            -- decimal: 20 is 20 %
    country TEXT,                                               -- ISO 3166, two letters
    state TEXT,                                                 -- of the country
    jurisdiction TEXT,                                          -- as at Stripe
    tax_type TEXT,                                              -- vat, sales_tax, …; Stripe's word
    inclusive BOOLEAN,                                          -- whether prices contain it
    created_at TIMESTAMPTZ,                                     -- Stripe's created
    partial TEXT[] NOT NULL DEFAULT '{}',                       -- what the row does not show, sorted
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- last write here
    source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch',     -- version of the snapshot shown: event time
    source_rank INT NOT NULL DEFAULT 0,                         -- version: rank within the second
    source_event_id TEXT NOT NULL DEFAULT ''                    -- version: the event
);
CREATE INDEX tax_rates_created_at_idx ON tax_rates (created_at);

CREATE TABLE balance_daily (
    day DATE NOT NULL,                                          -- UTC
    balance_type TEXT NOT NULL,                                 -- as in balance_transactions
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    reporting_category TEXT NOT NULL,                           -- as in balance_transactions
    amount_cents BIGINT NOT NULL DEFAULT 0,                     -- sum of the day's transactions
    fee_cents BIGINT NOT NULL DEFAULT 0,                        -- likewise
    net_cents BIGINT NOT NULL DEFAULT 0,                        -- likewise
    count BIGINT NOT NULL DEFAULT 0,                            -- the number of transactions
    CONSTRAINT balance_daily_pkey PRIMARY KEY (day, balance_type, currency, reporting_category)
);
