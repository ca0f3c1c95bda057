-- What the bundle adds to the predecessor's tables: columns, their values for the predecessor's
-- rows, constraints, indexes. The predecessor may go on writing while traffic moves over: columns
-- it does not know have defaults, or are filled by a trigger whose WHEN keeps it off our own writes.
-- CHECKs are NOT VALID: they bind every write from now on, but no old row can stop a deploy.

ALTER TABLE subscriptions
    ADD COLUMN stripe_customer_id TEXT,                         -- cus_…
    ADD COLUMN currency TEXT,                                   -- ISO 4217, upper case; NULL until known
    ADD COLUMN items JSONB NOT NULL DEFAULT '[]',               -- [{price, product, quantity, interval, …}]
    ADD COLUMN discounts JSONB NOT NULL DEFAULT '[]',           -- those of the subscription itself
    ADD COLUMN metadata JSONB NOT NULL DEFAULT '{}',            -- Stripe's
    ADD COLUMN mrr_microcents BIGINT NOT NULL DEFAULT 0,        -- 10⁻⁶ of a minor unit; 0 in statuses that do not count
    ADD COLUMN potential_mrr_microcents BIGINT NOT NULL DEFAULT 0, -- what it would be if the status counted
    ADD COLUMN mrr_provisional BOOLEAN NOT NULL DEFAULT false,  -- computed without a price or coupon not known yet
    ADD COLUMN started_at TIMESTAMPTZ,                          -- Stripe's start_date
    ADD COLUMN trial_start TIMESTAMPTZ,                         -- start of the trial
    ADD COLUMN cancel_at TIMESTAMPTZ,                           -- when it is set to end
    ADD COLUMN canceled_at TIMESTAMPTZ,                         -- when somebody asked for the end
    ADD COLUMN ended_at TIMESTAMPTZ,                            -- when it ended
    ADD COLUMN paused_at TIMESTAMPTZ,                           -- when it was paused
    ADD COLUMN pause_behavior TEXT,                             -- pause_collection.behavior
    ADD COLUMN superseded BOOLEAN NOT NULL DEFAULT false,       -- the predecessor's second row of one subscription
    ADD COLUMN source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch', -- version of the snapshot shown: event time
    ADD COLUMN source_rank INT NOT NULL DEFAULT 0,              -- version: rank within the second
    ADD COLUMN source_event_id TEXT NOT NULL DEFAULT '';        -- version: the event

ALTER TABLE invoices
    ADD COLUMN kind TEXT,                                       -- subscription, one_off, partner, overage
    ADD COLUMN stripe_customer_id TEXT,                         -- cus_…
    ADD COLUMN stripe_subscription_id TEXT,                     -- sub_…
    ADD COLUMN contract_id BIGINT,                              -- api_partner_contracts.id; NULL for the predecessor's
    ADD COLUMN finalized_at TIMESTAMPTZ,                        -- from then on the lines are frozen
    ADD COLUMN sent_at TIMESTAMPTZ,                             -- when it went to the customer
    ADD COLUMN deleted_at TIMESTAMPTZ,                          -- a draft deleted at Stripe
    ADD COLUMN amount_remaining_cents BIGINT,                   -- Stripe's, before later credit notes
    ADD COLUMN out_of_band_cents BIGINT NOT NULL DEFAULT 0,     -- paid outside Stripe
    ADD COLUMN credit_notes_cents BIGINT NOT NULL DEFAULT 0,    -- credit notes already in the snapshot
    ADD COLUMN credit_applied_cents BIGINT NOT NULL DEFAULT 0,  -- Σ credit_applications
    ADD COLUMN lines_complete BOOLEAN NOT NULL DEFAULT true,    -- false while only the first lines are known
    ADD COLUMN billing_reason TEXT,                             -- Stripe's word
    ADD COLUMN collection_method TEXT,                          -- Stripe's word
    ADD COLUMN attempt_count INT NOT NULL DEFAULT 0,            -- payment attempts; never goes back
    ADD COLUMN next_payment_attempt_at TIMESTAMPTZ,             -- when Stripe tries again
    ADD COLUMN pdf_key TEXT,                                    -- object key of the PDF
    ADD COLUMN pdf_sha256 TEXT,                                 -- hex digest of the PDF
    ADD COLUMN po_number TEXT,                                  -- the customer's purchase order
    ADD COLUMN tax_breakdown JSONB,                             -- per rate and jurisdiction
    ADD COLUMN superseded BOOLEAN NOT NULL DEFAULT false,       -- the predecessor's second row of one invoice
    ADD COLUMN source_created_at TIMESTAMPTZ NOT NULL DEFAULT 'epoch', -- version of the snapshot shown: event time
    ADD COLUMN source_rank INT NOT NULL DEFAULT 0,              -- version: rank within the second
    ADD COLUMN source_event_id TEXT NOT NULL DEFAULT '';        -- version: the event

ALTER TABLE payment_history
    ADD COLUMN payment_key TEXT,                                -- pi_…, ch_… without intent, in_… out of band, legacy:<id>
    ADD COLUMN stripe_customer_id TEXT,                         -- cus_…
    ADD COLUMN stripe_invoice_id TEXT,                          -- in_…
    ADD COLUMN decline_code TEXT,                               -- the issuer's reason
    ADD COLUMN fee_source TEXT,                                 -- actual, estimated; NULL = no fee
    ADD COLUMN stripe_balance_transaction_id TEXT,              -- txn_… of the charge
    ADD COLUMN settlement_currency TEXT,                        -- of the account's balance
    ADD COLUMN settlement_amount_cents BIGINT,                  -- in settlement_currency
    ADD COLUMN settlement_fee_cents BIGINT,                     -- in settlement_currency
    ADD COLUMN exchange_rate TEXT,                              -- decimal, as Stripe printed it
    ADD COLUMN succeeded_at TIMESTAMPTZ,                        -- earliest fact that shows the success
    ADD COLUMN dispute_status TEXT,                             -- of the newest dispute; Stripe's word
    ADD COLUMN disputed_amount_cents BIGINT NOT NULL DEFAULT 0, -- open or lost disputes
    ADD COLUMN superseded BOOLEAN NOT NULL DEFAULT false,       -- the predecessor's second row of one payment; never counted
    ADD COLUMN updated_at TIMESTAMPTZ DEFAULT now();            -- last write here

ALTER TABLE usage_events
    ADD COLUMN subject TEXT,                                    -- 'user:<id>' or 'partner:<prefix>'
    ADD COLUMN idempotency_key TEXT,                            -- the caller's; 'legacy:<id>' for the predecessor's
    ADD COLUMN currency TEXT NOT NULL DEFAULT 'USD',            -- of unit_price_cents
    ADD COLUMN ingested_at TIMESTAMPTZ NOT NULL DEFAULT now(),  -- when it came in
    ADD COLUMN payload_sha256 TEXT,                             -- hex digest: same key, other payload is a conflict
    ADD COLUMN voided_at TIMESTAMPTZ,                           -- taken back; the row stays
    ADD COLUMN void_reason TEXT;                                -- why

ALTER TABLE api_partner_contracts
    ADD COLUMN currency TEXT NOT NULL DEFAULT 'USD',            -- of every amount of the contract
    ADD COLUMN billing_email TEXT,                              -- where invoices go
    ADD COLUMN billing_address JSONB,                           -- printed on the invoice
    ADD COLUMN tax_id TEXT,                                     -- the partner's, printed on the invoice
    ADD COLUMN tax_rate_bps INT NOT NULL DEFAULT 0,             -- hundredths of a percent, on every line
    ADD COLUMN po_number TEXT,                                  -- printed on the invoice
    ADD COLUMN included_units BIGINT NOT NULL DEFAULT 0,        -- free units per month
    ADD COLUMN minimum_commitment_cents BIGINT NOT NULL DEFAULT 0, -- per month
    ADD COLUMN tiers JSONB,                                     -- [{up_to, unit_price_cents, flat_cents}]
    ADD COLUMN tier_mode TEXT,                                  -- graduated, volume
    ADD COLUMN unit_source TEXT NOT NULL DEFAULT 'api_usage',   -- api_usage, usage_events, both
    ADD COLUMN billable_event_types TEXT[],                     -- of usage_events; NULL = all
    ADD COLUMN stripe_customer_id TEXT,                         -- cus_… when collected through Stripe
    ADD COLUMN timezone TEXT NOT NULL DEFAULT 'UTC',            -- IANA name: where the billing days begin
    ADD COLUMN billed_from DATE NOT NULL
        DEFAULT (date_trunc('month', now() AT TIME ZONE 'UTC'))::date, -- nothing before is billed: the predecessor did
    ADD COLUMN suspended_at TIMESTAMPTZ,                        -- billed up to this day
    ADD COLUMN canceled_at TIMESTAMPTZ;                         -- billed up to this day

ALTER TABLE credits
    ADD COLUMN api_key_prefix TEXT,                             -- whose; NULL for users
    ADD COLUMN remaining_cents BIGINT,                          -- amount − Σ credit_applications
    ADD COLUMN voided_at TIMESTAMPTZ,                           -- taken back
    ADD COLUMN created_by TEXT;                                 -- who granted it; NULL for the predecessor's

-- Of several rows of one subscription, invoice or payment the lowest id goes on; the others stay
-- as the predecessor wrote them, marked. A payment's row that shows money, then one that shows the
-- refund, goes before one that does not; and a row that names the intent before one that names only
-- its charge. No trigger of the host may take the marking for a change of the row.
DO $$
DECLARE
    active RECORD;
    disabled TEXT[] := '{}';
BEGIN
    FOR active IN
        SELECT tgrelid::regclass AS table_name, tgname FROM pg_trigger
        WHERE NOT tgisinternal AND tgenabled = 'O'
          AND tgrelid IN ('subscriptions'::regclass, 'invoices'::regclass, 'payment_history'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', active.table_name, active.tgname);
        disabled := disabled || format('ALTER TABLE %s ENABLE TRIGGER %I', active.table_name, active.tgname);
    END LOOP;

    UPDATE subscriptions SET superseded = true WHERE id IN (
        SELECT id FROM (
            SELECT id, row_number() OVER (PARTITION BY stripe_subscription_id ORDER BY id) AS place
            FROM subscriptions WHERE stripe_subscription_id IS NOT NULL
        ) AS ranked WHERE place > 1);

    UPDATE invoices SET superseded = true WHERE id IN (
        SELECT id FROM (
            SELECT id, stripe_invoice_id,
                   row_number() OVER (PARTITION BY stripe_invoice_id ORDER BY id) AS place_by_id,
                   row_number() OVER (PARTITION BY invoice_number ORDER BY id) AS place_by_number
            FROM invoices
        ) AS ranked WHERE (place_by_id > 1 AND stripe_invoice_id IS NOT NULL) OR place_by_number > 1);

    UPDATE payment_history SET superseded = true WHERE id IN (
        SELECT id FROM (
            SELECT id, stripe_payment_intent_id,
                   row_number() OVER (
                       PARTITION BY stripe_payment_intent_id
                       ORDER BY status IN ('succeeded', 'refunded', 'partially_refunded', 'disputed') DESC,
                                COALESCE(refund_amount_cents, 0) DESC, id) AS place
            FROM payment_history
        ) AS ranked WHERE place > 1 AND stripe_payment_intent_id IS NOT NULL);

    UPDATE payment_history SET superseded = true WHERE id IN (
        SELECT id FROM (
            SELECT id, stripe_charge_id, stripe_payment_intent_id,
                   row_number() OVER (
                       PARTITION BY stripe_charge_id
                       ORDER BY stripe_payment_intent_id IS NULL,
                                status IN ('succeeded', 'refunded', 'partially_refunded', 'disputed') DESC,
                                COALESCE(refund_amount_cents, 0) DESC, id) AS place
            FROM payment_history WHERE NOT superseded
        ) AS ranked WHERE place > 1 AND stripe_charge_id IS NOT NULL AND stripe_payment_intent_id IS NULL);

    FOR active IN SELECT unnest(disabled) AS statement LOOP
        EXECUTE active.statement;
    END LOOP;
END
$$;

-- Values for the predecessor's rows; ALTER … USING again, so that no trigger fires.
ALTER TABLE invoices
    ALTER COLUMN kind TYPE TEXT USING CASE WHEN api_key_prefix IS NULL THEN 'subscription' ELSE 'partner' END,
    ALTER COLUMN kind SET NOT NULL;
ALTER TABLE payment_history
    ALTER COLUMN payment_key TYPE TEXT USING CASE
        WHEN superseded THEN 'legacy:' || id
        ELSE COALESCE(stripe_payment_intent_id, stripe_charge_id, 'legacy:' || id) END,
    ALTER COLUMN payment_key SET NOT NULL,
    ALTER COLUMN fee_source TYPE TEXT USING CASE
        WHEN status IN ('succeeded', 'refunded', 'partially_refunded', 'disputed') THEN 'estimated' END,
    ALTER COLUMN succeeded_at TYPE TIMESTAMPTZ USING CASE
        WHEN status IN ('succeeded', 'refunded', 'partially_refunded', 'disputed') THEN created_at END;
ALTER TABLE usage_events
    ALTER COLUMN subject TYPE TEXT USING COALESCE('user:' || user_id, 'partner:' || api_key_prefix, 'legacy:' || id),
    ALTER COLUMN subject SET NOT NULL,
    ALTER COLUMN idempotency_key TYPE TEXT USING 'legacy:' || id,
    ALTER COLUMN idempotency_key SET NOT NULL,
    ALTER COLUMN ingested_at TYPE TIMESTAMPTZ USING created_at;
ALTER TABLE credits
    ALTER COLUMN remaining_cents TYPE BIGINT USING CASE
        WHEN applied_to_invoice_id IS NULL THEN GREATEST(amount_cents, 0) ELSE 0 END,
    ALTER COLUMN remaining_cents SET NOT NULL;

-- The predecessor's inserts during the move. Our own always name these columns.
CREATE FUNCTION billing_fill_invoice() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.kind := CASE WHEN NEW.api_key_prefix IS NULL THEN 'subscription' ELSE 'partner' END;
    RETURN NEW;
END
$$;
CREATE TRIGGER invoices_fill_for_predecessor BEFORE INSERT ON invoices
    FOR EACH ROW WHEN (NEW.kind IS NULL) EXECUTE FUNCTION billing_fill_invoice();

CREATE FUNCTION billing_fill_payment() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.payment_key := COALESCE(NEW.stripe_payment_intent_id, NEW.stripe_charge_id, 'legacy:' || NEW.id);
    RETURN NEW;
END
$$;
CREATE TRIGGER payment_history_fill_for_predecessor BEFORE INSERT ON payment_history
    FOR EACH ROW WHEN (NEW.payment_key IS NULL) EXECUTE FUNCTION billing_fill_payment();

CREATE FUNCTION billing_fill_usage_event() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.subject := COALESCE(NEW.subject, 'user:' || NEW.user_id, 'partner:' || NEW.api_key_prefix, 'legacy:' || NEW.id);
    NEW.idempotency_key := COALESCE(NEW.idempotency_key, 'legacy:' || NEW.id);
    RETURN NEW;
END
$$;
CREATE TRIGGER usage_events_fill_for_predecessor BEFORE INSERT ON usage_events
    FOR EACH ROW WHEN (NEW.subject IS NULL OR NEW.idempotency_key IS NULL) EXECUTE FUNCTION billing_fill_usage_event();

CREATE FUNCTION billing_fill_credit() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.remaining_cents := CASE WHEN NEW.applied_to_invoice_id IS NULL THEN GREATEST(NEW.amount_cents, 0) ELSE 0 END;
    RETURN NEW;
END
$$;
CREATE TRIGGER credits_fill_for_predecessor BEFORE INSERT ON credits
    FOR EACH ROW WHEN (NEW.remaining_cents IS NULL) EXECUTE FUNCTION billing_fill_credit();

ALTER TABLE invoices
    ADD CONSTRAINT invoices_status_check
        CHECK (status IN ('draft', 'open', 'paid', 'void', 'uncollectible')) NOT VALID,
    ADD CONSTRAINT invoices_kind_check
        CHECK (kind IN ('subscription', 'one_off', 'partner', 'overage')) NOT VALID,
    ADD CONSTRAINT invoices_contract_id_fkey
        FOREIGN KEY (contract_id) REFERENCES api_partner_contracts (id);
ALTER TABLE payment_history
    ADD CONSTRAINT payment_history_status_check CHECK (status IN
        ('pending', 'succeeded', 'failed', 'refunded', 'partially_refunded', 'disputed', 'canceled')) NOT VALID,
    ADD CONSTRAINT payment_history_fee_source_check CHECK (fee_source IN ('actual', 'estimated')) NOT VALID;
ALTER TABLE usage_events
    ADD CONSTRAINT usage_events_cost_units_check CHECK (cost_units >= 0) NOT VALID;
ALTER TABLE api_partner_contracts
    ADD CONSTRAINT api_partner_contracts_pricing_model_check
        CHECK (pricing_model IN ('flat', 'per_deed', 'hybrid', 'per_request', 'tiered')) NOT VALID,
    ADD CONSTRAINT api_partner_contracts_billing_cycle_check
        CHECK (billing_cycle IN ('monthly', 'quarterly', 'annual')) NOT VALID,
    ADD CONSTRAINT api_partner_contracts_payment_terms_check
        CHECK (payment_terms IN ('immediate', 'net_15', 'net_30', 'net_45', 'net_60', 'net_90')) NOT VALID,
    ADD CONSTRAINT api_partner_contracts_payment_method_check
        CHECK (payment_method IN ('stripe', 'wire', 'check', 'ach')) NOT VALID,
    ADD CONSTRAINT api_partner_contracts_status_check
        CHECK (status IN ('active', 'suspended', 'canceled')) NOT VALID,
    ADD CONSTRAINT api_partner_contracts_tier_mode_check
        CHECK (tier_mode IN ('graduated', 'volume')) NOT VALID,
    ADD CONSTRAINT api_partner_contracts_unit_source_check
        CHECK (unit_source IN ('api_usage', 'usage_events', 'both')) NOT VALID;
ALTER TABLE credits
    ADD CONSTRAINT credits_reason_check
        CHECK (reason IN ('refund', 'promotional', 'goodwill', 'chargeback')) NOT VALID,
    ADD CONSTRAINT credits_remaining_cents_check CHECK (remaining_cents >= 0) NOT VALID;

-- Unique among the rows that go on. The predecessor's own unique constraints, where it has them,
-- stay beside these: its ON CONFLICT clauses name them until it is switched off.
CREATE UNIQUE INDEX subscriptions_stripe_subscription_id_live_key
    ON subscriptions (stripe_subscription_id) WHERE NOT superseded;
CREATE UNIQUE INDEX invoices_stripe_invoice_id_live_key
    ON invoices (stripe_invoice_id) WHERE NOT superseded;
CREATE UNIQUE INDEX invoices_invoice_number_live_key
    ON invoices (invoice_number) WHERE NOT superseded;
-- A rerun, a double fire and two runs at once never bill a period twice.
CREATE UNIQUE INDEX invoices_contract_period_live_key
    ON invoices (contract_id, billing_period_start, billing_period_end)
    WHERE status <> 'void' AND contract_id IS NOT NULL;
CREATE UNIQUE INDEX payment_history_stripe_payment_intent_id_live_key
    ON payment_history (stripe_payment_intent_id) WHERE NOT superseded;
CREATE UNIQUE INDEX payment_history_payment_key_key ON payment_history (payment_key);
CREATE UNIQUE INDEX usage_events_subject_idempotency_key_key ON usage_events (subject, idempotency_key);
CREATE UNIQUE INDEX IF NOT EXISTS api_partner_contracts_api_key_prefix_key ON api_partner_contracts (api_key_prefix);

CREATE INDEX IF NOT EXISTS subscriptions_stripe_customer_id_idx ON subscriptions (stripe_customer_id);
CREATE INDEX IF NOT EXISTS subscriptions_user_id_idx ON subscriptions (user_id);
CREATE INDEX IF NOT EXISTS subscriptions_status_idx ON subscriptions (status);
CREATE INDEX IF NOT EXISTS subscriptions_created_at_id_idx ON subscriptions (created_at, id);
CREATE INDEX IF NOT EXISTS invoices_stripe_customer_id_idx ON invoices (stripe_customer_id);
CREATE INDEX IF NOT EXISTS invoices_stripe_subscription_id_idx ON invoices (stripe_subscription_id);
CREATE INDEX IF NOT EXISTS invoices_user_id_idx ON invoices (user_id);
CREATE INDEX IF NOT EXISTS invoices_api_key_prefix_idx ON invoices (api_key_prefix);
CREATE INDEX IF NOT EXISTS invoices_status_idx ON invoices (status);
CREATE INDEX IF NOT EXISTS invoices_created_at_id_idx ON invoices (created_at, id);
CREATE INDEX IF NOT EXISTS payment_history_created_at_id_idx ON payment_history (created_at, id);
CREATE INDEX IF NOT EXISTS payment_history_user_id_idx ON payment_history (user_id);
CREATE INDEX IF NOT EXISTS payment_history_stripe_customer_id_idx ON payment_history (stripe_customer_id);
CREATE INDEX IF NOT EXISTS payment_history_stripe_invoice_id_idx ON payment_history (stripe_invoice_id);
CREATE INDEX IF NOT EXISTS payment_history_stripe_charge_id_idx ON payment_history (stripe_charge_id);
CREATE INDEX IF NOT EXISTS payment_history_invoice_id_idx ON payment_history (invoice_id);
CREATE INDEX IF NOT EXISTS payment_history_status_idx ON payment_history (status);
CREATE INDEX IF NOT EXISTS payment_history_succeeded_at_idx ON payment_history (succeeded_at);
CREATE INDEX IF NOT EXISTS usage_events_subject_created_at_idx ON usage_events (subject, created_at);
CREATE INDEX IF NOT EXISTS credits_user_id_idx ON credits (user_id);
CREATE INDEX IF NOT EXISTS credits_api_key_prefix_idx ON credits (api_key_prefix);
