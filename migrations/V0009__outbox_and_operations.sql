-- Work that leaves the database, and what operators look at.

CREATE TABLE outbox (
    id BIGSERIAL CONSTRAINT outbox_pkey PRIMARY KEY,            -- order of publishing
    detail_type TEXT NOT NULL,                                  -- e.g. payment.succeeded
    dedupe_key TEXT NOT NULL CONSTRAINT outbox_dedupe_key_key UNIQUE, -- event_id consumers dedupe on
    detail JSONB NOT NULL,                                      -- ids and amounts only
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- in the effect's transaction
    published_at TIMESTAMPTZ,                                   -- NULL = still to be sent
    attempts INT NOT NULL DEFAULT 0,                            -- so far
    next_attempt_at TIMESTAMPTZ,                                -- not before; NULL = now
    last_error TEXT                                             -- of the last attempt
);
CREATE INDEX outbox_unpublished_idx ON outbox (id) WHERE published_at IS NULL;

CREATE TABLE reconciliation_runs (
    run_id BIGSERIAL CONSTRAINT reconciliation_runs_pkey PRIMARY KEY, -- surrogate
    kind TEXT NOT NULL CONSTRAINT reconciliation_runs_kind_check
        CHECK (kind IN ('daily', 'redrive', 'backfill')),       -- which schedule
    since TIMESTAMPTZ,                                          -- window compared
    until TIMESTAMPTZ,                                          -- window compared, exclusive
    started_at TIMESTAMPTZ NOT NULL,                            -- begin
    finished_at TIMESTAMPTZ,                                    -- NULL while running, or cut off
    status TEXT NOT NULL DEFAULT 'running' CONSTRAINT reconciliation_runs_status_check
        CHECK (status IN ('running', 'completed', 'incomplete', 'failed')), -- incomplete = something could not be checked
    compared BIGINT NOT NULL DEFAULT 0,                         -- objects of Stripe looked at
    matched BIGINT NOT NULL DEFAULT 0,                          -- of them equal to the ledger's
    healed BIGINT NOT NULL DEFAULT 0,                           -- put right by the run
    open BIGINT NOT NULL DEFAULT 0,                             -- left for a person
    completeness_bps INT,                                       -- matched ÷ compared
    summary JSONB NOT NULL DEFAULT '{}',                        -- sums per currency, what could not be checked
    cursor JSONB,                                               -- where a backfill goes on
    report_key TEXT                                             -- object key of the CSV
);
CREATE INDEX reconciliation_runs_started_at_idx ON reconciliation_runs (started_at);

CREATE TABLE reconciliation_items (
    id BIGSERIAL CONSTRAINT reconciliation_items_pkey PRIMARY KEY, -- surrogate
    run_id BIGINT NOT NULL CONSTRAINT reconciliation_items_run_id_fkey
        REFERENCES reconciliation_runs (run_id),                -- found by
    kind TEXT NOT NULL CONSTRAINT reconciliation_items_kind_check CHECK (kind IN
        ('missing_in_db', 'missing_in_stripe', 'amount_differs', 'status_differs', 'fee_differs',
         'currency_differs')),                                  -- what differs
    resolution TEXT NOT NULL DEFAULT 'open' CONSTRAINT reconciliation_items_resolution_check
        CHECK (resolution IN ('healed', 'open', 'accepted')),   -- what became of it
    object_type TEXT NOT NULL,                                  -- charge, refund, invoice, …
    object_id TEXT NOT NULL,                                    -- Stripe's id
    currency TEXT,                                              -- of the amounts
    stripe_value TEXT,                                          -- what Stripe says
    ledger_value TEXT,                                          -- what the ledger says
    detail JSONB NOT NULL DEFAULT '{}',                         -- whatever explains it
    found_at TIMESTAMPTZ NOT NULL DEFAULT now(),                -- when
    resolved_at TIMESTAMPTZ,                                    -- healed or accepted
    accepted_by TEXT,                                           -- who accepted it
    accepted_reason TEXT                                        -- why
);
CREATE INDEX reconciliation_items_run_id_idx ON reconciliation_items (run_id);
CREATE INDEX reconciliation_items_object_id_idx ON reconciliation_items (object_id);

CREATE TABLE notifications (
    id BIGSERIAL CONSTRAINT notifications_pkey PRIMARY KEY,     -- surrogate
    dedupe_key TEXT NOT NULL CONSTRAINT notifications_dedupe_key_key UNIQUE, -- sent once
    template TEXT NOT NULL,                                     -- which text
    recipient TEXT NOT NULL,                                    -- address
    subject_ref TEXT,                                           -- what it is about
    status TEXT NOT NULL DEFAULT 'pending' CONSTRAINT notifications_status_check
        CHECK (status IN ('pending', 'sent', 'failed', 'suppressed')), -- where it stands
    provider_message_id TEXT,                                   -- the mailer's id
    attempts INT NOT NULL DEFAULT 0,                            -- so far
    error TEXT,                                                 -- of the last attempt
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- when it was due
    sent_at TIMESTAMPTZ                                         -- when the mailer took it
);
CREATE INDEX notifications_pending_idx ON notifications (id) WHERE status = 'pending';

CREATE TABLE dunning_campaigns (
    id BIGSERIAL CONSTRAINT dunning_campaigns_pkey PRIMARY KEY, -- surrogate
    invoice_id BIGINT NOT NULL CONSTRAINT dunning_campaigns_invoice_id_fkey
        REFERENCES invoices (id)
        CONSTRAINT dunning_campaigns_invoice_id_key UNIQUE,     -- one campaign per unpaid invoice
    status TEXT NOT NULL DEFAULT 'active' CONSTRAINT dunning_campaigns_status_check
        CHECK (status IN ('active', 'recovered', 'exhausted', 'stopped')), -- where it stands
    step INT NOT NULL DEFAULT 0,                                -- last step done; derived from facts
    next_step_at TIMESTAMPTZ,                                   -- when the next is due
    started_at TIMESTAMPTZ NOT NULL,                            -- first failure
    ended_at TIMESTAMPTZ                                        -- paid, given up, or stopped
);
CREATE INDEX dunning_campaigns_next_step_at_idx ON dunning_campaigns (next_step_at) WHERE status = 'active';

CREATE TABLE dunning_attempts (
    id BIGSERIAL CONSTRAINT dunning_attempts_pkey PRIMARY KEY,  -- surrogate
    campaign_id BIGINT NOT NULL CONSTRAINT dunning_attempts_campaign_id_fkey
        REFERENCES dunning_campaigns (id),                      -- of which campaign
    step INT NOT NULL,                                          -- which step
    action TEXT NOT NULL,                                       -- reminder, retry, downgrade, …
    outcome TEXT,                                               -- what came of it
    attempted_at TIMESTAMPTZ NOT NULL,                          -- when
    CONSTRAINT dunning_attempts_campaign_step_key UNIQUE (campaign_id, step)
);

CREATE TABLE audit_log (
    id BIGSERIAL CONSTRAINT audit_log_pkey PRIMARY KEY,         -- surrogate
    at TIMESTAMPTZ NOT NULL DEFAULT now(),                      -- when
    actor TEXT NOT NULL,                                        -- who, as the token names them
    action TEXT NOT NULL,                                       -- e.g. contract.update
    target TEXT NOT NULL,                                       -- what it was done to
    before JSONB,                                               -- NULL for a creation
    after JSONB                                                 -- NULL for a removal
);
CREATE INDEX audit_log_target_idx ON audit_log (target, id);
