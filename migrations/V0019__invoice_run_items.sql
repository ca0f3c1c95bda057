-- What a run leaves for a person, and whether it came to its end.

ALTER TABLE invoice_runs
    ADD COLUMN needs_review BIGINT NOT NULL DEFAULT 0,          -- invoices not issued until somebody has looked
    ADD COLUMN items JSONB NOT NULL DEFAULT '[]',               -- [{contract_id, period_start, status, …}], needs_review
    ADD COLUMN stopped_early BOOLEAN NOT NULL DEFAULT false;    -- at its deadline; the next run goes on
