-- The tables of the predecessor, with its columns. Where the predecessor has made them, they and
-- their rows stay; V0003 brings their types to the ones below.

CREATE TABLE IF NOT EXISTS subscriptions (
    id BIGSERIAL CONSTRAINT subscriptions_pkey PRIMARY KEY,     -- surrogate
    user_id INT,                                                -- users.id; NULL until known
    stripe_subscription_id TEXT,                                -- sub_…; unique among rows not superseded
    status TEXT NOT NULL,                                       -- Stripe's word, also one we do not know
    current_period_start TIMESTAMPTZ,                           -- of the running service period
    current_period_end TIMESTAMPTZ,                             -- of the running service period, exclusive
    plan_name TEXT NOT NULL DEFAULT 'unknown',                  -- as in plan_limits; 'unknown' when nothing names it
    current_plan_price_cents BIGINT,                            -- minor units of currency, per billing_cycle
    billing_cycle TEXT,                                         -- interval of the first item's price
    auto_renew BOOLEAN DEFAULT true,                            -- whether a next period will be billed
    cancel_at_period_end BOOLEAN NOT NULL DEFAULT false,        -- ends with current_period_end
    cancellation_reason TEXT,                                   -- Stripe's cancellation_details.reason
    mrr_cents BIGINT NOT NULL DEFAULT 0,                        -- half-even rounding of mrr_microcents
    trial_end TIMESTAMPTZ,                                      -- end of the trial
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- Stripe's created
    updated_at TIMESTAMPTZ DEFAULT now()                        -- last write here
);

CREATE TABLE IF NOT EXISTS invoices (
    id BIGSERIAL CONSTRAINT invoices_pkey PRIMARY KEY,          -- surrogate
    user_id INT,                                                -- users.id; NULL for partners and until known
    api_key_prefix TEXT,                                        -- the partner billed; NULL for users
    invoice_number TEXT NOT NULL,                               -- printed number; the Stripe id of a draft
    stripe_invoice_id TEXT,                                     -- in_…; NULL for one Stripe does not collect
    subtotal_cents BIGINT DEFAULT 0,                            -- Σ lines, minor units of currency
    tax_cents BIGINT DEFAULT 0,                                 -- Σ taxes
    discount_cents BIGINT DEFAULT 0,                            -- Σ discounts
    total_cents BIGINT DEFAULT 0,                               -- subtotal − discount + tax
    amount_paid_cents BIGINT DEFAULT 0,                         -- paid so far
    amount_due_cents BIGINT DEFAULT 0,                          -- what remains to be paid
    currency TEXT NOT NULL DEFAULT 'USD',                       -- ISO 4217, upper case
    status TEXT NOT NULL DEFAULT 'draft',                       -- draft, open, paid, void, uncollectible
    billing_period_start TIMESTAMPTZ,                           -- service period
    billing_period_end TIMESTAMPTZ,                             -- service period, exclusive
    due_date TIMESTAMPTZ,                                       -- when payment is due
    paid_at TIMESTAMPTZ,                                        -- when it became paid
    voided_at TIMESTAMPTZ,                                      -- when it became void
    line_items JSONB DEFAULT '{"items": []}',                   -- {"items":[{description, quantity, unit_price_cents, total_cents, …}]}
    notes TEXT,                                                 -- printed below the lines
    invoice_pdf_url TEXT,                                       -- where the PDF can be fetched
    metadata JSONB,                                             -- free form
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- Stripe's created, or ours
    updated_at TIMESTAMPTZ DEFAULT now()                        -- last write here
);

CREATE TABLE IF NOT EXISTS payment_history (
    id BIGSERIAL CONSTRAINT payment_history_pkey PRIMARY KEY,   -- surrogate
    invoice_id BIGINT,                                          -- invoices.id; NULL until known, or for none
    user_id INT,                                                -- users.id; NULL until known
    stripe_payment_intent_id TEXT,                              -- pi_…; unique among rows not superseded
    stripe_charge_id TEXT,                                      -- ch_… or py_… of the newest attempt
    amount_cents BIGINT NOT NULL,                               -- minor units of currency
    currency TEXT NOT NULL DEFAULT 'USD',                       -- ISO 4217, upper case
    status TEXT NOT NULL DEFAULT 'pending',                     -- see payment_history_status_check
    payment_method TEXT,                                        -- card, us_bank_account, …, out_of_band
    stripe_fee_cents BIGINT,                                    -- in currency; NULL = the predecessor did not know
    net_amount_cents BIGINT,                                    -- amount − fee − refunds − disputed
    failure_code TEXT,                                          -- Stripe's last error
    failure_message TEXT,                                       -- Stripe's last error, in words
    refunded_at TIMESTAMPTZ,                                    -- the newest refund
    refund_reason TEXT,                                         -- of the newest refund
    refund_amount_cents BIGINT DEFAULT 0,                       -- running total
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()               -- Stripe's created
);

CREATE TABLE IF NOT EXISTS usage_events (
    id BIGSERIAL CONSTRAINT usage_events_pkey PRIMARY KEY,      -- surrogate
    user_id INT,                                                -- who used it; NULL for partners
    api_key_prefix TEXT,                                        -- which partner used it; NULL for users
    event_type TEXT NOT NULL,                                   -- what was used
    resource_id TEXT,                                           -- the thing it was used on
    billable BOOLEAN NOT NULL DEFAULT true,                     -- counts against limits and on invoices
    cost_units BIGINT NOT NULL DEFAULT 1,                       -- how many units
    unit_price_cents BIGINT,                                    -- per unit, minor units of currency
    metadata JSONB,                                             -- free form
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()               -- when it happened
);

CREATE TABLE IF NOT EXISTS api_partner_contracts (
    id BIGSERIAL CONSTRAINT api_partner_contracts_pkey PRIMARY KEY, -- surrogate
    api_key_prefix TEXT NOT NULL,                               -- the partner
    company TEXT,                                               -- name on the invoice
    pricing_model TEXT NOT NULL,                                -- see api_partner_contracts_pricing_model_check
    monthly_flat_fee_cents BIGINT,                              -- per month, minor units of currency
    per_deed_price_cents BIGINT,                                -- per unit
    per_1000_requests_cents BIGINT,                             -- per started thousand
    billing_cycle TEXT NOT NULL DEFAULT 'monthly',              -- monthly, quarterly, annual
    payment_terms TEXT NOT NULL DEFAULT 'net_30',               -- immediate, net_15 … net_90
    payment_method TEXT NOT NULL DEFAULT 'stripe',              -- stripe, wire, check, ach
    monthly_request_limit BIGINT DEFAULT -1,                    -- −1 = unlimited
    rate_limit_per_minute BIGINT,                               -- enforced by the gateway
    status TEXT NOT NULL DEFAULT 'active',                      -- active, suspended, canceled
    contract_start_date DATE,                                   -- first billed day
    contract_end_date DATE,                                     -- last billed day; NULL = open
    notes TEXT,                                                 -- internal
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- when it was entered
    updated_at TIMESTAMPTZ DEFAULT now()                        -- last change
);

CREATE TABLE IF NOT EXISTS credits (
    id BIGSERIAL CONSTRAINT credits_pkey PRIMARY KEY,           -- surrogate
    user_id INT,                                                -- whose; NULL for partners
    invoice_id BIGINT,                                          -- the invoice it makes good; NULL for none
    amount_cents BIGINT NOT NULL,                               -- granted, minor units of currency
    currency TEXT NOT NULL DEFAULT 'USD',                       -- ISO 4217, upper case
    reason TEXT,                                                -- refund, promotional, goodwill, chargeback
    description TEXT,                                           -- in words
    applied_to_invoice_id BIGINT,                               -- the last invoice it went to
    expires_at TIMESTAMPTZ,                                     -- NULL = never
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()               -- when it was granted
);
