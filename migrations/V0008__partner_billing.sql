-- Partner billing beyond contracts and invoices.

CREATE TABLE invoice_number_counters (
    series TEXT CONSTRAINT invoice_number_counters_pkey PRIMARY KEY, -- e.g. 'API-202511-<prefix>'
    next_value BIGINT NOT NULL DEFAULT 1                        -- taken FOR UPDATE: no gaps, no duplicates
);

CREATE TABLE credit_applications (
    id BIGSERIAL CONSTRAINT credit_applications_pkey PRIMARY KEY, -- surrogate
    credit_id BIGINT NOT NULL CONSTRAINT credit_applications_credit_id_fkey
        REFERENCES credits (id),                                -- taken from
    invoice_id BIGINT NOT NULL CONSTRAINT credit_applications_invoice_id_fkey
        REFERENCES invoices (id),                               -- applied to
    amount_cents BIGINT NOT NULL CONSTRAINT credit_applications_amount_check
        CHECK (amount_cents > 0),                               -- in the currency of both
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()               -- when
);
CREATE INDEX credit_applications_credit_id_idx ON credit_applications (credit_id);
CREATE INDEX credit_applications_invoice_id_idx ON credit_applications (invoice_id);

CREATE TABLE invoice_runs (
    run_id BIGSERIAL CONSTRAINT invoice_runs_pkey PRIMARY KEY,  -- surrogate
    period_start TIMESTAMPTZ,                                   -- of the newest period billed
    period_end TIMESTAMPTZ,                                     -- exclusive
    started_at TIMESTAMPTZ NOT NULL,                            -- begin of the run
    finished_at TIMESTAMPTZ,                                    -- NULL while running, or cut off
    contracts BIGINT NOT NULL DEFAULT 0,                        -- looked at
    created BIGINT NOT NULL DEFAULT 0,                          -- invoices made
    already_present BIGINT NOT NULL DEFAULT 0,                  -- periods billed before
    failed BIGINT NOT NULL DEFAULT 0,                           -- contracts that could not be billed
    errors JSONB NOT NULL DEFAULT '[]'                          -- [{contract_id, error}]
);
