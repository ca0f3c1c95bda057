-- What an invoice's total is made of, what was to be paid before credit notes, when it was given up, and the taxes of
-- credit notes: tax and aging are told net of credit notes, as of any instant.

ALTER TABLE invoices
    ADD COLUMN inclusive_tax_cents BIGINT NOT NULL DEFAULT 0,   -- the part of tax_cents that the subtotal contains
    ADD COLUMN pretax_credits_cents BIGINT NOT NULL DEFAULT 0,  -- billing credits at Stripe, taken off before tax
    ADD COLUMN shipping_cents BIGINT NOT NULL DEFAULT 0,        -- shipping without tax
    ADD COLUMN due_before_credit_notes_cents BIGINT,            -- Stripe's amount_due before credit notes; NULL for ours and before V0038
    ADD COLUMN uncollectible_at TIMESTAMPTZ;                    -- when it was marked uncollectible

ALTER TABLE credit_notes
    ADD COLUMN tax_cents BIGINT NOT NULL DEFAULT 0,             -- the tax that it gives back, minor units of currency
    ADD COLUMN tax_breakdown JSONB;                             -- Stripe's list of its taxes; NULL before V0038
