-- Brings the predecessor's columns to the types, defaults and nullability of V0002: amounts from
-- INT to BIGINT, VARCHAR(n) and enumerations to TEXT, TIMESTAMP holding UTC to TIMESTAMPTZ. On
-- tables that V0002 has just made it changes nothing. Columns not listed here are left alone.
--
-- Values are carried over inside ALTER … USING, not by UPDATE, so that no trigger of the host
-- (`updated_at`) fires, and each table is rewritten once.

-- The predecessor's CHECKs know fewer values than we write; ours follow in V0004. Its foreign keys
-- go because a payment has to be recorded whether or not its user or invoice is known, and because
-- deleting a user must never take the payments along.
DO $$
DECLARE
    found RECORD;
BEGIN
    FOR found IN
        SELECT conrelid::regclass AS table_name, conname
        FROM pg_constraint
        WHERE contype IN ('c', 'f')
          AND conrelid IN ('subscriptions'::regclass, 'invoices'::regclass, 'payment_history'::regclass,
                           'usage_events'::regclass, 'api_partner_contracts'::regclass, 'credits'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.table_name, found.conname);
    END LOOP;
END
$$;

-- fill: what takes the place of NULL in a column that must not be NULL; NULL = may be NULL. An
-- amount the predecessor did not know (a fee, a tax) stays NULL and does not become 0.
CREATE TEMPORARY TABLE wanted_columns ON COMMIT DROP AS
SELECT * FROM (VALUES
    ('subscriptions', 'user_id', 'integer', NULL, NULL),
    ('subscriptions', 'stripe_subscription_id', 'text', NULL, NULL),
    ('subscriptions', 'status', 'text', NULL, '''unknown'''),
    ('subscriptions', 'current_period_start', 'timestamp with time zone', NULL, NULL),
    ('subscriptions', 'current_period_end', 'timestamp with time zone', NULL, NULL),
    ('subscriptions', 'plan_name', 'text', '''unknown''', '''unknown'''),
    ('subscriptions', 'current_plan_price_cents', 'bigint', NULL, NULL),
    ('subscriptions', 'billing_cycle', 'text', NULL, NULL),
    ('subscriptions', 'auto_renew', 'boolean', 'true', NULL),
    ('subscriptions', 'cancel_at_period_end', 'boolean', 'false', 'false'),
    ('subscriptions', 'cancellation_reason', 'text', NULL, NULL),
    ('subscriptions', 'mrr_cents', 'bigint', '0', '0'),
    ('subscriptions', 'trial_end', 'timestamp with time zone', NULL, NULL),
    ('subscriptions', 'created_at', 'timestamp with time zone', 'now()', '''epoch''::timestamptz'),
    ('subscriptions', 'updated_at', 'timestamp with time zone', 'now()', NULL),

    ('invoices', 'user_id', 'integer', NULL, NULL),
    ('invoices', 'api_key_prefix', 'text', NULL, NULL),
    ('invoices', 'invoice_number', 'text', NULL, 'COALESCE(stripe_invoice_id::text, ''legacy:'' || id)'),
    ('invoices', 'stripe_invoice_id', 'text', NULL, NULL),
    ('invoices', 'subtotal_cents', 'bigint', '0', NULL),
    ('invoices', 'tax_cents', 'bigint', '0', NULL),
    ('invoices', 'discount_cents', 'bigint', '0', NULL),
    ('invoices', 'total_cents', 'bigint', '0', NULL),
    ('invoices', 'amount_paid_cents', 'bigint', '0', NULL),
    ('invoices', 'amount_due_cents', 'bigint', '0', NULL),
    ('invoices', 'currency', 'text', '''USD''', '''USD'''),
    ('invoices', 'status', 'text', '''draft''', '''draft'''),
    ('invoices', 'billing_period_start', 'timestamp with time zone', NULL, NULL),
    ('invoices', 'billing_period_end', 'timestamp with time zone', NULL, NULL),
    ('invoices', 'due_date', 'timestamp with time zone', NULL, NULL),
    ('invoices', 'paid_at', 'timestamp with time zone', NULL, NULL),
    ('invoices', 'voided_at', 'timestamp with time zone', NULL, NULL),
    ('invoices', 'line_items', 'jsonb', '''{"items": []}''', NULL),
    ('invoices', 'notes', 'text', NULL, NULL),
    ('invoices', 'invoice_pdf_url', 'text', NULL, NULL),
    ('invoices', 'metadata', 'jsonb', NULL, NULL),
    ('invoices', 'created_at', 'timestamp with time zone', 'now()', '''epoch''::timestamptz'),
    ('invoices', 'updated_at', 'timestamp with time zone', 'now()', NULL),

    ('payment_history', 'invoice_id', 'bigint', NULL, NULL),
    ('payment_history', 'user_id', 'integer', NULL, NULL),
    ('payment_history', 'stripe_payment_intent_id', 'text', NULL, NULL),
    ('payment_history', 'stripe_charge_id', 'text', NULL, NULL),
    ('payment_history', 'amount_cents', 'bigint', NULL, '0'),
    ('payment_history', 'currency', 'text', '''USD''', '''USD'''),
    ('payment_history', 'status', 'text', '''pending''', '''pending'''),
    ('payment_history', 'payment_method', 'text', NULL, NULL),
    ('payment_history', 'stripe_fee_cents', 'bigint', NULL, NULL),
    ('payment_history', 'net_amount_cents', 'bigint', NULL, NULL),
    ('payment_history', 'failure_code', 'text', NULL, NULL),
    ('payment_history', 'failure_message', 'text', NULL, NULL),
    ('payment_history', 'refunded_at', 'timestamp with time zone', NULL, NULL),
    ('payment_history', 'refund_reason', 'text', NULL, NULL),
    ('payment_history', 'refund_amount_cents', 'bigint', '0', NULL),
    ('payment_history', 'created_at', 'timestamp with time zone', 'now()', '''epoch''::timestamptz'),

    ('usage_events', 'user_id', 'integer', NULL, NULL),
    ('usage_events', 'api_key_prefix', 'text', NULL, NULL),
    ('usage_events', 'event_type', 'text', NULL, '''unknown'''),
    ('usage_events', 'resource_id', 'text', NULL, NULL),
    ('usage_events', 'billable', 'boolean', 'true', 'true'),
    ('usage_events', 'cost_units', 'bigint', '1', '1'),
    ('usage_events', 'unit_price_cents', 'bigint', NULL, NULL),
    ('usage_events', 'metadata', 'jsonb', NULL, NULL),
    ('usage_events', 'created_at', 'timestamp with time zone', 'now()', '''epoch''::timestamptz'),

    ('api_partner_contracts', 'api_key_prefix', 'text', NULL, '''legacy:'' || id'),
    ('api_partner_contracts', 'company', 'text', NULL, NULL),
    ('api_partner_contracts', 'pricing_model', 'text', NULL, '''flat'''),
    ('api_partner_contracts', 'monthly_flat_fee_cents', 'bigint', NULL, NULL),
    ('api_partner_contracts', 'per_deed_price_cents', 'bigint', NULL, NULL),
    ('api_partner_contracts', 'per_1000_requests_cents', 'bigint', NULL, NULL),
    ('api_partner_contracts', 'billing_cycle', 'text', '''monthly''', '''monthly'''),
    ('api_partner_contracts', 'payment_terms', 'text', '''net_30''', '''net_30'''),
    ('api_partner_contracts', 'payment_method', 'text', '''stripe''', '''stripe'''),
    ('api_partner_contracts', 'monthly_request_limit', 'bigint', '-1', NULL),
    ('api_partner_contracts', 'rate_limit_per_minute', 'bigint', NULL, NULL),
    ('api_partner_contracts', 'status', 'text', '''active''', '''active'''),
    ('api_partner_contracts', 'contract_start_date', 'date', NULL, NULL),
    ('api_partner_contracts', 'contract_end_date', 'date', NULL, NULL),
    ('api_partner_contracts', 'notes', 'text', NULL, NULL),
    ('api_partner_contracts', 'created_at', 'timestamp with time zone', 'now()', '''epoch''::timestamptz'),
    ('api_partner_contracts', 'updated_at', 'timestamp with time zone', 'now()', NULL),

    ('credits', 'user_id', 'integer', NULL, NULL),
    ('credits', 'invoice_id', 'bigint', NULL, NULL),
    ('credits', 'amount_cents', 'bigint', NULL, '0'),
    ('credits', 'currency', 'text', '''USD''', '''USD'''),
    ('credits', 'reason', 'text', NULL, NULL),
    ('credits', 'description', 'text', NULL, NULL),
    ('credits', 'applied_to_invoice_id', 'bigint', NULL, NULL),
    ('credits', 'expires_at', 'timestamp with time zone', NULL, NULL),
    ('credits', 'created_at', 'timestamp with time zone', 'now()', '''epoch''::timestamptz')
) AS wanted (table_name, column_name, type_name, default_value, fill);

DO $$
DECLARE
    wanted RECORD;
    target RECORD;
    present_type TEXT;
    clauses TEXT[];
    value TEXT;
    sequence_name TEXT;
BEGIN
    FOR target IN SELECT DISTINCT table_name FROM wanted_columns ORDER BY table_name LOOP
        clauses := '{}';

        -- The key and the sequence behind it.
        IF (SELECT format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = target.table_name::regclass AND attname = 'id') <> 'bigint' THEN
            clauses := clauses || 'ALTER COLUMN id TYPE BIGINT'::text;
            SELECT pg_get_serial_sequence(target.table_name, 'id') INTO sequence_name;
            IF sequence_name IS NOT NULL
               AND (SELECT attidentity = '' FROM pg_attribute
                    WHERE attrelid = target.table_name::regclass AND attname = 'id') THEN
                EXECUTE format('ALTER SEQUENCE %s AS BIGINT', sequence_name);
            END IF;
        END IF;

        FOR wanted IN SELECT * FROM wanted_columns WHERE table_name = target.table_name LOOP
            SELECT format_type(atttypid, atttypmod) INTO present_type FROM pg_attribute
            WHERE attrelid = target.table_name::regclass AND attname = wanted.column_name AND NOT attisdropped;

            IF present_type IS NULL THEN
                EXECUTE format('ALTER TABLE %I ADD COLUMN %I %s',
                    target.table_name, wanted.column_name, wanted.type_name);
                present_type := wanted.type_name;
            END IF;

            value := quote_ident(wanted.column_name);
            IF wanted.type_name = 'timestamp with time zone' THEN
                value := CASE
                    WHEN present_type LIKE '%with time zone' THEN value
                    ELSE format('%s::timestamp AT TIME ZONE ''UTC''', value) END;
            ELSIF wanted.type_name = 'date' AND present_type LIKE '%with time zone' THEN
                value := format('(%s AT TIME ZONE ''UTC'')::date', value);
            ELSIF wanted.column_name = 'currency' THEN
                value := format('upper(%s::text)', value);
            ELSE
                value := format('%s::%s', value, wanted.type_name);
            END IF;

            -- A default such as timezone('utc', now()) would mean something else in the new type.
            IF wanted.default_value IS NOT NULL OR wanted.type_name LIKE 'timestamp%' THEN
                clauses := clauses || format('ALTER COLUMN %I DROP DEFAULT', wanted.column_name);
            END IF;
            IF wanted.fill IS NOT NULL THEN
                value := format('COALESCE(%s, %s)', value, wanted.fill);
            ELSE
                clauses := clauses || format('ALTER COLUMN %I DROP NOT NULL', wanted.column_name);
            END IF;
            IF wanted.fill IS NOT NULL OR present_type <> wanted.type_name THEN
                clauses := clauses || format('ALTER COLUMN %I TYPE %s USING %s',
                    wanted.column_name, wanted.type_name, value);
            END IF;
        END LOOP;
        EXECUTE format('ALTER TABLE %I %s', target.table_name, array_to_string(clauses, ', '));

        -- Defaults and NOT NULL belong to the new types.
        clauses := '{}';
        FOR wanted IN SELECT * FROM wanted_columns
                      WHERE table_name = target.table_name AND (default_value IS NOT NULL OR fill IS NOT NULL) LOOP
            IF wanted.default_value IS NOT NULL THEN
                clauses := clauses || format('ALTER COLUMN %I SET DEFAULT %s', wanted.column_name, wanted.default_value);
            END IF;
            IF wanted.fill IS NOT NULL THEN
                clauses := clauses || format('ALTER COLUMN %I SET NOT NULL', wanted.column_name);
            END IF;
        END LOOP;
        EXECUTE format('ALTER TABLE %I %s', target.table_name, array_to_string(clauses, ', '));
    END LOOP;
END
$$;
