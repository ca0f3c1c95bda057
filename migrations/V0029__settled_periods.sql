-- Periods of contracts that ended with nothing to bill, and by what terms: a flat fee agreed later
-- is not charged for them, and usage that comes later is rated by the prices of then.

CREATE TABLE settled_periods (
    contract_id BIGINT NOT NULL CONSTRAINT settled_periods_contract_id_fkey
        REFERENCES api_partner_contracts (id),                  -- whose
    period_start TIMESTAMPTZ NOT NULL,                          -- first billed instant
    period_end TIMESTAMPTZ NOT NULL,                            -- exclusive
    terms JSONB NOT NULL,                                       -- what it is rated by, as in invoiced_usage
    settled_at TIMESTAMPTZ NOT NULL,                            -- the run that found nothing to bill
    CONSTRAINT settled_periods_pkey PRIMARY KEY (contract_id, period_start, period_end)
);
