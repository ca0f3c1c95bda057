-- What taxes a contract's invoices carry, each with its name and jurisdiction, and which of the gateway's rows are billed.

ALTER TABLE api_partner_contracts
    ADD COLUMN taxes JSONB,                                     -- [{name, jurisdiction, percentage, registration}]; NULL = tax_rate_bps
    ADD COLUMN tax_note TEXT,                                   -- printed under the taxes; NULL for none
    ADD COLUMN billable_status_codes TEXT;                      -- of api_usage, 200-299,404; NULL = all but 429 and 500-599
