-- Periods of contracts that somebody has decided are never billed.

CREATE TABLE waived_periods (
    contract_id BIGINT NOT NULL CONSTRAINT waived_periods_contract_id_fkey
        REFERENCES api_partner_contracts (id),                  -- whose
    period_start TIMESTAMPTZ NOT NULL,                          -- first instant
    period_end TIMESTAMPTZ NOT NULL,                            -- exclusive
    reason TEXT NOT NULL,                                       -- why, for people
    waived_by TEXT NOT NULL,                                    -- who decided it
    waived_at TIMESTAMPTZ NOT NULL,                             -- when
    CONSTRAINT waived_periods_pkey PRIMARY KEY (contract_id, period_start, period_end)
);
