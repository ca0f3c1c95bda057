-- What of a contract changes on which day. The terms of a day are the fold of all changes in force on it, by
-- (effective_from, id); the columns of api_partner_contracts say what holds today. A contract without changes is read from
-- its columns, and the next run of partner-invoicing stores them as changes.

CREATE TABLE contract_changes (
    id BIGINT GENERATED ALWAYS AS IDENTITY CONSTRAINT contract_changes_pkey PRIMARY KEY, -- the later of a day wins
    contract_id BIGINT NOT NULL CONSTRAINT contract_changes_contract_id_fkey
        REFERENCES api_partner_contracts (id),                  -- whose
    effective_from DATE,                                        -- first day on which it holds; NULL = since ever
    members JSONB NOT NULL,                                     -- the dated members it changes; null restores a default
    reason TEXT,                                                -- why, where somebody said so
    reviewed BOOLEAN NOT NULL,                                  -- somebody has looked at what it does to the past
    created_by TEXT NOT NULL,                                   -- who entered it; host for what was written into columns
    created_at TIMESTAMPTZ NOT NULL,                            -- when
    revoked_at TIMESTAMPTZ                                      -- taken back before it was in force; NULL while it is not
);
CREATE INDEX contract_changes_contract_id_created_at_id_idx ON contract_changes (contract_id, created_at, id);

ALTER TABLE api_partner_contracts
    ADD COLUMN terms_since DATE NOT NULL
        -- The day is the same for every row, so that none is rewritten.
        -- squawk-ignore adding-field-with-default
        DEFAULT ((now() AT TIME ZONE 'UTC')::date),             -- when terms became dated, or the row was written
    ADD COLUMN projected_on DATE;                               -- the day that the columns are the terms of; NULL = not stored yet
