-- What each partner invoice billed of each period, so that usage which comes after a period was
-- invoiced is billed once: what is counted now less the sum of what invoices that are not void
-- have billed.

CREATE TABLE invoiced_usage (
    invoice_id BIGINT NOT NULL CONSTRAINT invoiced_usage_invoice_id_fkey
        REFERENCES invoices (id),                               -- billed on
    contract_id BIGINT NOT NULL CONSTRAINT invoiced_usage_contract_id_fkey
        REFERENCES api_partner_contracts (id),                  -- whose
    period_start TIMESTAMPTZ NOT NULL,                          -- of the period the usage belongs to
    period_end TIMESTAMPTZ NOT NULL,                            -- exclusive
    units BIGINT NOT NULL,                                      -- more than were billed before; may be negative
    requests BIGINT NOT NULL,                                   -- likewise
    amount_cents BIGINT NOT NULL,                               -- before tax, in terms' currency; may be negative
    terms JSONB,                                                -- what the period is rated by; NULL on an adjustment
    CONSTRAINT invoiced_usage_pkey PRIMARY KEY (invoice_id, period_start, period_end)
);
CREATE INDEX invoiced_usage_contract_id_period_end_idx ON invoiced_usage (contract_id, period_end);

-- What a run has left to do with invoices that are issued.
CREATE INDEX invoices_without_pdf_idx ON invoices (id)
    WHERE contract_id IS NOT NULL AND pdf_key IS NULL AND status <> 'void';
CREATE INDEX invoices_unsent_idx ON invoices (id)
    WHERE contract_id IS NOT NULL AND sent_at IS NULL AND collection_method = 'send_invoice' AND status = 'open';
