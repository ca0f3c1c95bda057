-- The ledger's reads and writes. Made from the mirrored tables (`shared/store/src/ledger.rs`):
-- UPDATE_SQL=1 cargo test -p shared --test documents

CREATE OR REPLACE FUNCTION billing_read_HASH(named_customers TEXT[], named_checkout_sessions TEXT[], named_subscriptions TEXT[], named_invoices TEXT[], named_credit_notes TEXT[], named_payment_intents TEXT[], named_charges TEXT[], named_refunds TEXT[], named_disputes TEXT[], named_invoice_payments TEXT[], named_prices TEXT[], named_coupons TEXT[], named_discounts TEXT[], named_balance_transactions TEXT[], named_payouts TEXT[], named_tax_rates TEXT[], user_ids INTEGER[])
RETURNS JSON LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    has_payments BOOLEAN := cardinality(named_payment_intents || named_charges || named_refunds || named_disputes
                                        || named_invoices || named_invoice_payments) > 0;
    reached_intents TEXT[];
    reached_charges TEXT[];
    reached_records TEXT[];
    found_customers JSON;
    found_users_of_customers JSON;
    found_checkout_sessions JSON;
    found_subscriptions JSON;
    found_versions JSON;
    found_plan_prices JSON;
    found_plans JSON;
    found_invoices JSON;
    found_credit_notes JSON;
    found_payment_intents JSON;
    found_charges JSON;
    found_refunds JSON;
    found_disputes JSON;
    found_invoice_payments JSON;
    found_invoices_paid_at JSON;
    found_entries JSON;
    found_prices JSON;
    found_coupons JSON;
    found_discounts JSON;
    found_balance_transactions JSON;
    found_payouts JSON;
    found_tax_rates JSON;
    found_users JSON;
    found_entitling JSON;
BEGIN
    IF has_payments THEN
        SELECT intents, charges INTO reached_intents, reached_charges
        FROM billing_reached_payments(named_payment_intents, named_charges, named_invoices);
        reached_records := named_invoice_payments
            || ARRAY(SELECT stripe_payment_record_id FROM invoice_payments
                     WHERE stripe_invoice_id = ANY (named_invoices) AND stripe_payment_record_id IS NOT NULL);
    END IF;
    IF cardinality(named_customers) > 0 THEN
        found_customers := (SELECT json_agg(one) FROM (SELECT stripe_customer_id, email, name, currency, delinquent, deleted_at, metadata, created_at, user_link_rank, user_link_at, user_link_event_id, user_link_user_id, source_created_at, source_rank, source_event_id, partial FROM customers WHERE stripe_customer_id = ANY (named_customers)) AS one);
    END IF;
    IF cardinality(named_customers) > 0 THEN
        found_users_of_customers := (SELECT json_object_agg(stripe_customer_id, user_id) FROM customers
        WHERE stripe_customer_id = ANY (named_customers));
    END IF;
    IF cardinality(named_subscriptions || named_checkout_sessions || named_payment_intents) > 0 THEN
        found_checkout_sessions := (SELECT json_agg(one) FROM (SELECT stripe_checkout_session_id, stripe_customer_id, stripe_subscription_id, stripe_payment_intent_id, stripe_invoice_id, user_id, plan_name, mode, status, payment_status, metadata, created_at, source_created_at, source_rank, source_event_id, partial FROM checkout_sessions WHERE stripe_checkout_session_id = ANY (named_checkout_sessions)
        OR stripe_subscription_id = ANY (named_subscriptions)
        OR stripe_payment_intent_id = ANY (named_payment_intents)) AS one);
    END IF;
    IF cardinality(named_subscriptions) > 0 THEN
        found_subscriptions := (SELECT json_agg(one) FROM (SELECT stripe_subscription_id, stripe_customer_id, status, currency, items, items_shown_at, items_complete, discounts, inherited_discounts, current_period_start, current_period_end, cancel_at_period_end, cancellation_reason, cancel_at, canceled_at, ended_at, trial_start, trial_end, started_at, paused_at, pause_behavior, metadata, created_at, source_created_at, source_rank, source_event_id, partial FROM subscriptions WHERE stripe_subscription_id = ANY (named_subscriptions) AND NOT superseded AND source_event_id <> ''
        AND stripe_customer_id IS NOT NULL AND created_at IS NOT NULL) AS one);
    END IF;
    IF cardinality(named_subscriptions) > 0 THEN
        found_versions := (SELECT json_agg(one) FROM (SELECT stripe_subscription_id, stripe_customer_id, source_event_id, source_created_at, source_rank, occurred_at, status, currency, mrr_microcents, potential_mrr_microcents, mrr_provisional, waits_for, missing, plan_name, overruled, set_to_cancel, is_counted, all_discounts_microcents, no_discounts_microcents, discount_steps FROM subscription_versions WHERE stripe_customer_id = ANY (named_customers) OR stripe_subscription_id = ANY (named_subscriptions)) AS one);
    END IF;
    IF cardinality(named_subscriptions) > 0 THEN
        found_plan_prices := (SELECT json_agg(json_build_array(stripe_price_id, plan_name) ORDER BY stripe_price_id) FROM plan_prices);
    END IF;
    IF cardinality(named_subscriptions) > 0 THEN
        found_plans := (SELECT json_agg(plan_name ORDER BY plan_name) FROM plan_limits);
    END IF;
    IF cardinality(named_invoices || named_credit_notes) > 0 THEN
        found_invoices := (SELECT json_agg(one) FROM (SELECT stripe_invoice_id, invoice_number, stripe_customer_id, stripe_subscription_id, status, currency, subtotal_cents, tax_cents, inclusive_tax_cents, discount_cents, pretax_credits_cents, shipping_cents, total_cents, due_before_credit_notes_cents, amount_paid_cents, amount_remaining_cents, names_payment, credit_notes_cents, billing_period_start, billing_period_end, due_date, paid_at, voided_at, uncollectible_at, finalized_at, deleted_at, attempt_count, next_payment_attempt_at, line_items -> 'items' AS line_items, lines_complete, tax_breakdown, billing_reason, collection_method, invoice_pdf_url, notes, metadata, created_at, CASE WHEN names_payment IS NULL AND out_of_band_cents > 0 THEN source_created_at
        ELSE outside_stripe_stated_at END AS outside_stripe_stated_at, CASE WHEN names_payment IS NULL AND out_of_band_cents > 0 THEN out_of_band_cents
        ELSE outside_stripe_stated_cents END AS outside_stripe_stated_cents, source_created_at, source_rank, source_event_id, partial FROM invoices WHERE stripe_invoice_id = ANY (named_invoices) AND NOT superseded AND source_event_id <> '') AS one);
    END IF;
    IF cardinality(named_invoices || named_credit_notes) > 0 THEN
        found_credit_notes := (SELECT json_agg(one) FROM (SELECT stripe_credit_note_id, stripe_invoice_id, stripe_customer_id, amount_cents, pre_payment_cents, tax_cents, tax_breakdown, out_of_band_cents, refunds, currency, status, reason, voided_at, created_at, source_created_at, source_rank, source_event_id, partial FROM credit_notes WHERE stripe_credit_note_id = ANY (named_credit_notes) OR stripe_invoice_id = ANY (named_invoices)) AS one);
    END IF;
    IF has_payments THEN
        found_payment_intents := (SELECT json_agg(one) FROM (SELECT stripe_payment_intent_id, stripe_customer_id, amount_cents, amount_received_cents, currency, status, latest_charge_id, stripe_invoice_id, payment_method, failure_code, decline_code, failure_message, succeeded_at, canceled_at, user_id, created_at, source_created_at, source_rank, source_event_id, partial FROM payment_intents WHERE stripe_payment_intent_id = ANY (reached_intents)) AS one);
    END IF;
    IF has_payments THEN
        found_charges := (SELECT json_agg(one) FROM (SELECT stripe_charge_id, stripe_payment_intent_id, stripe_customer_id, stripe_invoice_id, amount_cents, amount_captured_cents, currency, status, captured, failure_code, decline_code, failure_message, payment_method, user_id, succeeded_at, refund_totals, stripe_balance_transaction_id, failure_balance_transaction_id, attempted_at, source_created_at, source_rank, source_event_id, partial FROM payment_attempts WHERE stripe_charge_id = ANY (reached_charges)) AS one);
    END IF;
    IF has_payments THEN
        found_refunds := (SELECT json_agg(one) FROM (SELECT stripe_refund_id, stripe_charge_id, stripe_payment_intent_id, amount_cents, currency, reason, status, stripe_balance_transaction_id, failure_balance_transaction_id, metadata, source, stripe_invoice_id, created_at, failed_at, source_created_at, source_rank, source_event_id, partial FROM refunds WHERE stripe_charge_id = ANY (reached_charges) OR stripe_payment_intent_id = ANY (reached_intents) OR stripe_refund_id = ANY (named_refunds)) AS one);
    END IF;
    IF has_payments THEN
        found_disputes := (SELECT json_agg(one) FROM (SELECT stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id, amount_cents, currency, reason, status, balance_transaction_ids, funds_withdrawn_at, funds_reinstated_at, closed_at, evidence_due_by, created_at, source_created_at, source_rank, source_event_id, partial FROM disputes WHERE stripe_charge_id = ANY (reached_charges) OR stripe_payment_intent_id = ANY (reached_intents) OR stripe_dispute_id = ANY (named_disputes)) AS one);
    END IF;
    IF has_payments THEN
        found_invoice_payments := (SELECT json_agg(one) FROM (SELECT stripe_invoice_id, stripe_payment_intent_id, stripe_charge_id, stripe_payment_record_id, reported_by, stripe_invoice_payment_id, is_default, stripe_customer_id, amount_paid_cents, currency, status, paid_at, source_created_at, source_rank, source_event_id, partial FROM invoice_payments WHERE stripe_charge_id = ANY (reached_charges) OR stripe_payment_intent_id = ANY (reached_intents) OR stripe_invoice_id = ANY (named_invoices) OR stripe_payment_record_id = ANY (reached_records)) AS one);
    END IF;
    IF has_payments THEN
        found_invoices_paid_at := (SELECT json_object_agg(invoices.stripe_invoice_id, invoices.paid_at)
        FROM invoices
        WHERE invoices.stripe_invoice_id = ANY (ARRAY(
                  SELECT stripe_invoice_id FROM invoice_payments
                  WHERE stripe_charge_id = ANY (reached_charges)
                     OR stripe_payment_intent_id = ANY (reached_intents)))
          AND invoices.status = 'paid' AND invoices.paid_at IS NOT NULL AND invoices.out_of_band_cents = 0
          AND invoices.source_event_id <> '' AND NOT invoices.superseded);
    END IF;
    IF has_payments THEN
        found_entries := (SELECT json_agg(one) FROM (
            SELECT payment_key, kind, source_id, occurred_at, currency, amount_cents, is_estimated
            FROM revenue_entries
            WHERE payment_key = ANY (reached_charges || reached_intents || reached_records || named_invoices
                || named_credit_notes
                -- What a note paid back belongs to no payment while its invoice has none outside Stripe.
                || ARRAY(SELECT stripe_credit_note_id FROM credit_notes
                         WHERE stripe_invoice_id = ANY (named_invoices)))
        ) AS one);
    END IF;
    IF cardinality(named_prices) > 0 THEN
        found_prices := (SELECT json_agg(one) FROM (SELECT metadata, active, deleted_at, created_at, stripe_price_id, stripe_product_id, currency, unit_amount_decimal, billing_scheme, tiers, tiers_mode, currency_options, transform_quantity, recurring_interval, interval_count, usage_type, lookup_key, nickname, source_created_at, source_rank, source_event_id, partial FROM prices WHERE stripe_price_id = ANY (named_prices)) AS one);
    END IF;
    IF cardinality(named_coupons || named_discounts) > 0 THEN
        found_coupons := (SELECT json_agg(one) FROM (SELECT deleted_at, created_at, stripe_coupon_id, percent_off, amount_off_cents, currency, duration, duration_in_months, applies_to, currency_options, source_created_at, source_rank, source_event_id, partial FROM coupons WHERE stripe_coupon_id = ANY (named_coupons || ARRAY(
        SELECT stripe_coupon_id FROM discounts
        WHERE stripe_coupon_id IS NOT NULL
          AND (stripe_discount_id = ANY (named_discounts)
               OR stripe_customer_id = ANY (named_discounts) AND stripe_subscription_id IS NULL)))) AS one);
    END IF;
    IF cardinality(named_discounts) > 0 THEN
        found_discounts := (SELECT json_agg(one) FROM (SELECT stripe_discount_id, stripe_coupon_id, stripe_customer_id, stripe_subscription_id, ended_at, created_at, source_created_at, source_rank, source_event_id, partial FROM discounts WHERE stripe_discount_id = ANY (named_discounts)
        OR stripe_customer_id = ANY (named_discounts) AND stripe_subscription_id IS NULL) AS one);
    END IF;
    IF has_payments OR cardinality(named_balance_transactions) > 0 THEN
        found_balance_transactions := (SELECT json_agg(one) FROM (SELECT stripe_balance_transaction_id, type, reporting_category, balance_type, currency, amount_cents, fee_cents, net_cents, fee_details, exchange_rate, source_id, source_kind, payment_key, description, created_at, available_at, stripe_payout_id, source_created_at, source_rank, source_event_id, partial FROM balance_transactions WHERE stripe_balance_transaction_id = ANY (named_balance_transactions)
        OR payment_key = ANY (reached_charges || reached_intents)
        OR source_id = ANY (named_charges || named_refunds || named_disputes)) AS one);
    END IF;
    IF cardinality(named_payouts) > 0 THEN
        found_payouts := (SELECT json_agg(one) FROM (SELECT stripe_payout_id, amount_cents, currency, status, automatic, method, arrival_on, trace_id, reconciliation_status, stripe_balance_transaction_id, failure_balance_transaction_id, failure_code, created_at, transactions_listed_at, source_created_at, source_rank, source_event_id, partial FROM payouts WHERE stripe_payout_id = ANY (named_payouts)) AS one);
    END IF;
    IF cardinality(named_tax_rates || named_invoices || named_credit_notes) > 0 THEN
        found_tax_rates := (SELECT json_agg(one) FROM (SELECT stripe_tax_rate_id, display_name, percentage, country, state, jurisdiction, tax_type, inclusive, created_at, source_created_at, source_rank, source_event_id, partial FROM tax_rates WHERE stripe_tax_rate_id = ANY (named_tax_rates || ARRAY(
        SELECT rate #>> '{}' FROM (
            SELECT tax_breakdown FROM invoices
            WHERE stripe_invoice_id = ANY (named_invoices) AND NOT superseded
            UNION ALL
            SELECT tax_breakdown FROM credit_notes
            WHERE stripe_credit_note_id = ANY (named_credit_notes)
               OR stripe_invoice_id = ANY (named_invoices)
        ) AS taxed, LATERAL (
            SELECT jsonb_path_query(tax_breakdown, 'lax $[*].tax_rate_details.tax_rate') AS rate
            UNION ALL SELECT jsonb_path_query(tax_breakdown, 'lax $[*].tax_rate')
            UNION ALL SELECT jsonb_path_query(tax_breakdown, 'lax $[*].tax_rate.id')
        ) AS named))) AS one);
    END IF;
    IF cardinality(user_ids) > 0 THEN
        found_users := (SELECT json_agg(json_build_array(id, stripe_customer_id)) FROM users WHERE id = ANY (user_ids));
    END IF;
    IF cardinality(user_ids) > 0 THEN
        found_entitling := (SELECT json_agg(one) FROM (
            SELECT stripe_subscription_id, stripe_customer_id, user_id, status, plan_name, started_at,
                   source_event_id = '' AS is_named_only,
                   source_event_id = '' AND EXISTS (
                       SELECT FROM checkout_sessions
                       WHERE checkout_sessions.stripe_subscription_id = subscriptions.stripe_subscription_id
                         AND checkout_sessions.payment_status IN ('paid', 'no_payment_required')) AS is_bought
            FROM subscriptions
            WHERE (user_id = ANY (user_ids) OR stripe_customer_id = ANY (named_customers))
              AND stripe_subscription_id IS NOT NULL AND NOT superseded
        ) AS one);
    END IF;
    RETURN json_build_object(
        'customers', found_customers,
        'users_of_customers', found_users_of_customers,
        'checkout_sessions', found_checkout_sessions,
        'subscriptions', found_subscriptions,
        'versions', found_versions,
        'plan_prices', found_plan_prices,
        'plans', found_plans,
        'invoices', found_invoices,
        'credit_notes', found_credit_notes,
        'payment_intents', found_payment_intents,
        'charges', found_charges,
        'refunds', found_refunds,
        'disputes', found_disputes,
        'invoice_payments', found_invoice_payments,
        'invoices_paid_at', found_invoices_paid_at,
        'entries', found_entries,
        'prices', found_prices,
        'coupons', found_coupons,
        'discounts', found_discounts,
        'balance_transactions', found_balance_transactions,
        'payouts', found_payouts,
        'tax_rates', found_tax_rates,
        'users', found_users,
        'entitling', found_entitling
    );
END
$$;

CREATE OR REPLACE FUNCTION billing_open_HASH(events JSONB, named_customers TEXT[], named_checkout_sessions TEXT[], named_subscriptions TEXT[], named_invoices TEXT[], named_credit_notes TEXT[], named_payment_intents TEXT[], named_charges TEXT[], named_refunds TEXT[], named_disputes TEXT[], named_invoice_payments TEXT[], named_prices TEXT[], named_coupons TEXT[], named_discounts TEXT[], named_balance_transactions TEXT[], named_payouts TEXT[], named_tax_rates TEXT[], shared_keys TEXT[],
    shown_transactions TEXT[], named_users INTEGER[], decides_plans BOOLEAN, at TIMESTAMPTZ)
RETURNS JSON LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    new_events TEXT[];
    keys TEXT[] := named_customers || named_checkout_sessions || named_subscriptions || named_invoices || named_credit_notes || named_payment_intents || named_charges || named_refunds || named_disputes || named_invoice_payments || named_prices || named_coupons || named_discounts || named_balance_transactions || named_payouts || named_tax_rates;
    customers_of TEXT[];
    user_ids INTEGER[];
    locks BIGINT;
    locked TEXT[];
    others JSON;
    undigested JSON;
BEGIN
    IF events IS NOT NULL THEN
        WITH new AS (
            INSERT INTO stripe_events (event_id, type, api_version, livemode, account, object_id, created_at, payload,
                                       received_at, outcome, rank, state_digest, previous_digest)
            SELECT event_id, type, api_version, livemode, account, object_id, created_at, payload, at, outcome, rank,
                   state_digest, previous_digest
            FROM jsonb_to_recordset(events) AS event (event_id TEXT, type TEXT, api_version TEXT, livemode BOOLEAN,
                account TEXT, object_id TEXT, created_at TIMESTAMPTZ, payload JSONB, outcome TEXT, rank INTEGER,
                state_digest BIGINT, previous_digest BIGINT)
            ORDER BY event_id
            ON CONFLICT (event_id) DO NOTHING
            RETURNING event_id
        )
        SELECT array_agg(event_id) INTO new_events FROM new;
        IF new_events IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    IF cardinality(shown_transactions) > 0 THEN
        -- The payments of what names them or moved them. A fact about a charge, refund or dispute names these itself.
        named_charges := named_charges || ARRAY(
            SELECT stripe_charge_id FROM payment_attempts
            WHERE stripe_balance_transaction_id = ANY (shown_transactions)
               OR failure_balance_transaction_id = ANY (shown_transactions)
            UNION SELECT stripe_charge_id FROM refunds
            WHERE (stripe_refund_id = ANY (named_refunds)
                   OR stripe_balance_transaction_id = ANY (shown_transactions)
                   OR failure_balance_transaction_id = ANY (shown_transactions)) AND stripe_charge_id IS NOT NULL
            UNION SELECT stripe_charge_id FROM disputes
            WHERE (stripe_dispute_id = ANY (named_disputes)
                   OR balance_transaction_ids && shown_transactions) AND stripe_charge_id IS NOT NULL);
        named_payment_intents := named_payment_intents || ARRAY(
            SELECT stripe_payment_intent_id FROM refunds
            WHERE (stripe_refund_id = ANY (named_refunds)
                   OR stripe_balance_transaction_id = ANY (shown_transactions)
                   OR failure_balance_transaction_id = ANY (shown_transactions))
              AND stripe_payment_intent_id IS NOT NULL
            UNION SELECT stripe_payment_intent_id FROM disputes
            WHERE (stripe_dispute_id = ANY (named_disputes)
                   OR balance_transaction_ids && shown_transactions) AND stripe_payment_intent_id IS NOT NULL);
        keys := keys || named_charges || named_payment_intents;
    END IF;
    -- What the ids lead to is likely to be needed as well. Whoever finds more of it under the locks asks again.
    keys := keys || ARRAY(
        SELECT unnest(ARRAY[stripe_customer_id, stripe_payment_intent_id])
        FROM payment_attempts WHERE stripe_charge_id = ANY (named_charges)
        UNION SELECT stripe_customer_id FROM payment_intents
        WHERE stripe_payment_intent_id = ANY (named_payment_intents)
        UNION SELECT stripe_customer_id FROM invoices
        WHERE stripe_invoice_id = ANY (named_invoices) AND NOT superseded
        UNION SELECT COALESCE(stripe_payment_intent_id, stripe_charge_id, stripe_payment_record_id)
        FROM invoice_payments WHERE stripe_invoice_id = ANY (named_invoices));
    -- The users whose plan may change: of every customer when subscriptions are concerned, else of those whose user
    -- was not known.
    customers_of := named_customers;
    IF NOT decides_plans THEN
        customers_of := ARRAY(
            SELECT named FROM unnest(named_customers) AS named
            WHERE NOT EXISTS (SELECT FROM customers WHERE stripe_customer_id = named AND user_id IS NOT NULL));
    END IF;
    IF cardinality(customers_of) > 0 THEN
        user_ids := ARRAY(
            SELECT unnest(named_users)
            UNION SELECT unnest(ARRAY[user_id, user_link_user_id]) FROM customers
            WHERE stripe_customer_id = ANY (customers_of)
            UNION SELECT id FROM users WHERE stripe_customer_id = ANY (customers_of));
        keys := keys || ARRAY(SELECT 'user:' || user_id FROM unnest(user_ids) AS user_id WHERE user_id IS NOT NULL);
    END IF;
    WITH ordered AS MATERIALIZED (
        SELECT DISTINCT key FROM unnest(keys) AS key WHERE key IS NOT NULL ORDER BY key
    )
    SELECT array_agg(key), count(
        CASE WHEN key = ANY (shared_keys) THEN CAST(pg_advisory_xact_lock_shared(hashtextextended(key, 0)) AS TEXT)
             ELSE CAST(pg_advisory_xact_lock(hashtextextended(key, 0)) AS TEXT) END)
    INTO locked, locks FROM ordered;
    IF events IS NOT NULL THEN
        SELECT json_agg(json_build_array(other.object_id, other.created_at, other.event_id, other.rank,
                                         other.state_digest, other.previous_digest)),
               json_agg(other.payload) FILTER (WHERE other.rank IS NULL)
        INTO others, undigested
        FROM (
            SELECT DISTINCT object_id, created_at
            FROM jsonb_to_recordset(events) AS event (object_id TEXT, created_at TIMESTAMPTZ)
        ) AS second
        JOIN stripe_events AS other USING (object_id, created_at)
        WHERE other.outcome = 'applied' AND NOT other.event_id = ANY (new_events);
    END IF;
    RETURN json_build_object(
        'new_events', new_events, 'locked', locked, 'others_of_second', others,
        'undigested', undigested,
        'state', billing_read_HASH(named_customers, named_checkout_sessions, named_subscriptions, named_invoices, named_credit_notes, named_payment_intents, named_charges, named_refunds, named_disputes, named_invoice_payments, named_prices, named_coupons, named_discounts, named_balance_transactions, named_payouts, named_tax_rates, user_ids));
END
$$;

CREATE OR REPLACE FUNCTION billing_close_HASH(changes JSONB, at TIMESTAMPTZ)
RETURNS JSON LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    written JSONB;
    changed BIGINT;
    messages JSON;
BEGIN
    written := changes -> 'customers';
    IF written IS NOT NULL THEN
        INSERT INTO customers AS old (stripe_customer_id, email, name, currency, delinquent, deleted_at, metadata, created_at, user_link_rank, user_link_at, user_link_event_id, user_link_user_id, source_created_at, source_rank, source_event_id, partial, user_id, updated_at)
        SELECT new.stripe_customer_id, new.email, new.name, new.currency, new.delinquent, new.deleted_at, new.metadata, new.created_at, new.user_link_rank, new.user_link_at, new.user_link_event_id, new.user_link_user_id, new.source_created_at, new.source_rank, new.source_event_id, new.partial, COALESCE(new.user_link_user_id,
             (SELECT min(id) FROM users WHERE users.stripe_customer_id = new.stripe_customer_id)), at FROM jsonb_populate_recordset(CAST(NULL AS customers), written) AS new
        ON CONFLICT (stripe_customer_id) DO UPDATE SET stripe_customer_id = excluded.stripe_customer_id, email = excluded.email, name = excluded.name, currency = excluded.currency, delinquent = excluded.delinquent, deleted_at = excluded.deleted_at, metadata = excluded.metadata, created_at = excluded.created_at, user_link_rank = excluded.user_link_rank, user_link_at = excluded.user_link_at, user_link_event_id = excluded.user_link_event_id, user_link_user_id = excluded.user_link_user_id, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, user_id = excluded.user_id, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'customers: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'checkout_sessions';
    IF written IS NOT NULL THEN
        INSERT INTO checkout_sessions AS old (stripe_checkout_session_id, stripe_customer_id, stripe_subscription_id, stripe_payment_intent_id, stripe_invoice_id, user_id, plan_name, mode, status, payment_status, metadata, created_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_checkout_session_id, new.stripe_customer_id, new.stripe_subscription_id, new.stripe_payment_intent_id, new.stripe_invoice_id, new.user_id, new.plan_name, new.mode, new.status, new.payment_status, new.metadata, new.created_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS checkout_sessions), written) AS new
        ON CONFLICT (stripe_checkout_session_id) DO UPDATE SET stripe_checkout_session_id = excluded.stripe_checkout_session_id, stripe_customer_id = excluded.stripe_customer_id, stripe_subscription_id = excluded.stripe_subscription_id, stripe_payment_intent_id = excluded.stripe_payment_intent_id, stripe_invoice_id = excluded.stripe_invoice_id, user_id = excluded.user_id, plan_name = excluded.plan_name, mode = excluded.mode, status = excluded.status, payment_status = excluded.payment_status, metadata = excluded.metadata, created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'checkout_sessions: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'prices';
    IF written IS NOT NULL THEN
        INSERT INTO prices AS old (metadata, active, deleted_at, created_at, stripe_price_id, stripe_product_id, currency, unit_amount_decimal, billing_scheme, tiers, tiers_mode, currency_options, transform_quantity, recurring_interval, interval_count, usage_type, lookup_key, nickname, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.metadata, new.active, new.deleted_at, new.created_at, new.stripe_price_id, new.stripe_product_id, new.currency, new.unit_amount_decimal, new.billing_scheme, new.tiers, new.tiers_mode, new.currency_options, new.transform_quantity, new.recurring_interval, new.interval_count, new.usage_type, new.lookup_key, new.nickname, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS prices), written) AS new
        ON CONFLICT (stripe_price_id) DO UPDATE SET metadata = excluded.metadata, active = excluded.active, deleted_at = excluded.deleted_at, created_at = excluded.created_at, stripe_price_id = excluded.stripe_price_id, stripe_product_id = excluded.stripe_product_id, currency = excluded.currency, unit_amount_decimal = excluded.unit_amount_decimal, billing_scheme = excluded.billing_scheme, tiers = excluded.tiers, tiers_mode = excluded.tiers_mode, currency_options = excluded.currency_options, transform_quantity = excluded.transform_quantity, recurring_interval = excluded.recurring_interval, interval_count = excluded.interval_count, usage_type = excluded.usage_type, lookup_key = excluded.lookup_key, nickname = excluded.nickname, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'prices: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'coupons';
    IF written IS NOT NULL THEN
        INSERT INTO coupons AS old (deleted_at, created_at, stripe_coupon_id, percent_off, amount_off_cents, currency, duration, duration_in_months, applies_to, currency_options, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.deleted_at, new.created_at, new.stripe_coupon_id, new.percent_off, new.amount_off_cents, new.currency, new.duration, new.duration_in_months, new.applies_to, new.currency_options, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS coupons), written) AS new
        ON CONFLICT (stripe_coupon_id) DO UPDATE SET deleted_at = excluded.deleted_at, created_at = excluded.created_at, stripe_coupon_id = excluded.stripe_coupon_id, percent_off = excluded.percent_off, amount_off_cents = excluded.amount_off_cents, currency = excluded.currency, duration = excluded.duration, duration_in_months = excluded.duration_in_months, applies_to = excluded.applies_to, currency_options = excluded.currency_options, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'coupons: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'discounts';
    IF written IS NOT NULL THEN
        INSERT INTO discounts AS old (stripe_discount_id, stripe_coupon_id, stripe_customer_id, stripe_subscription_id, ended_at, created_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_discount_id, new.stripe_coupon_id, new.stripe_customer_id, new.stripe_subscription_id, new.ended_at, new.created_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS discounts), written) AS new
        ON CONFLICT (stripe_discount_id) DO UPDATE SET stripe_discount_id = excluded.stripe_discount_id, stripe_coupon_id = excluded.stripe_coupon_id, stripe_customer_id = excluded.stripe_customer_id, stripe_subscription_id = excluded.stripe_subscription_id, ended_at = excluded.ended_at, created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'discounts: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'named_by_session';
    IF written IS NOT NULL THEN
        INSERT INTO subscriptions AS stored (stripe_subscription_id, stripe_customer_id, user_id, status,
            plan_name, created_at, started_at, updated_at)
        SELECT stripe_subscription_id, stripe_customer_id,
            (SELECT user_id FROM customers WHERE customers.stripe_customer_id = named.stripe_customer_id),
            'incomplete', plan_name, created_at, created_at, at
        FROM jsonb_to_recordset(written) AS named (stripe_subscription_id TEXT, stripe_customer_id TEXT,
            plan_name TEXT, created_at TIMESTAMPTZ)
        ON CONFLICT (stripe_subscription_id) WHERE NOT superseded DO UPDATE SET
            plan_name = excluded.plan_name, updated_at = excluded.updated_at
        WHERE stored.source_event_id = '' AND stored.status = 'incomplete';
    END IF;
    written := changes -> 'subscriptions';
    IF written IS NOT NULL THEN
        INSERT INTO subscriptions AS old (stripe_subscription_id, stripe_customer_id, status, currency, items, items_shown_at, items_complete, discounts, inherited_discounts, current_period_start, current_period_end, cancel_at_period_end, cancellation_reason, cancel_at, canceled_at, ended_at, trial_start, trial_end, started_at, paused_at, pause_behavior, metadata, created_at, source_created_at, source_rank, source_event_id, plan_name, current_plan_price_cents, billing_cycle, auto_renew, mrr_cents, mrr_microcents, potential_mrr_microcents, mrr_provisional, partial, user_id, updated_at)
        SELECT new.stripe_subscription_id, new.stripe_customer_id, new.status, new.currency, new.items, new.items_shown_at, new.items_complete, new.discounts, new.inherited_discounts, new.current_period_start, new.current_period_end, new.cancel_at_period_end, new.cancellation_reason, new.cancel_at, new.canceled_at, new.ended_at, new.trial_start, new.trial_end, new.started_at, new.paused_at, new.pause_behavior, new.metadata, new.created_at, new.source_created_at, new.source_rank, new.source_event_id, new.plan_name, new.current_plan_price_cents, new.billing_cycle, new.auto_renew, new.mrr_cents, new.mrr_microcents, new.potential_mrr_microcents, new.mrr_provisional, new.partial, (SELECT user_id FROM customers WHERE customers.stripe_customer_id = new.stripe_customer_id), at FROM jsonb_populate_recordset(CAST(NULL AS subscriptions), written) AS new
        ON CONFLICT (stripe_subscription_id) WHERE NOT superseded DO UPDATE SET stripe_subscription_id = excluded.stripe_subscription_id, stripe_customer_id = excluded.stripe_customer_id, status = excluded.status, currency = excluded.currency, items = excluded.items, items_shown_at = excluded.items_shown_at, items_complete = excluded.items_complete, discounts = excluded.discounts, inherited_discounts = excluded.inherited_discounts, current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end, cancel_at_period_end = excluded.cancel_at_period_end, cancellation_reason = excluded.cancellation_reason, cancel_at = excluded.cancel_at, canceled_at = excluded.canceled_at, ended_at = excluded.ended_at, trial_start = excluded.trial_start, trial_end = excluded.trial_end, started_at = excluded.started_at, paused_at = excluded.paused_at, pause_behavior = excluded.pause_behavior, metadata = excluded.metadata, created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, plan_name = excluded.plan_name, current_plan_price_cents = excluded.current_plan_price_cents, billing_cycle = excluded.billing_cycle, auto_renew = excluded.auto_renew, mrr_cents = excluded.mrr_cents, mrr_microcents = excluded.mrr_microcents, potential_mrr_microcents = excluded.potential_mrr_microcents, mrr_provisional = excluded.mrr_provisional, partial = excluded.partial, user_id = excluded.user_id, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'subscriptions: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'credit_notes';
    IF written IS NOT NULL THEN
        INSERT INTO credit_notes AS old (stripe_credit_note_id, stripe_invoice_id, stripe_customer_id, amount_cents, pre_payment_cents, tax_cents, tax_breakdown, out_of_band_cents, refunds, currency, status, reason, voided_at, created_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_credit_note_id, new.stripe_invoice_id, new.stripe_customer_id, new.amount_cents, new.pre_payment_cents, new.tax_cents, new.tax_breakdown, new.out_of_band_cents, new.refunds, new.currency, new.status, new.reason, new.voided_at, new.created_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS credit_notes), written) AS new
        ON CONFLICT (stripe_credit_note_id) DO UPDATE SET stripe_credit_note_id = excluded.stripe_credit_note_id, stripe_invoice_id = excluded.stripe_invoice_id, stripe_customer_id = excluded.stripe_customer_id, amount_cents = excluded.amount_cents, pre_payment_cents = excluded.pre_payment_cents, tax_cents = excluded.tax_cents, tax_breakdown = excluded.tax_breakdown, out_of_band_cents = excluded.out_of_band_cents, refunds = excluded.refunds, currency = excluded.currency, status = excluded.status, reason = excluded.reason, voided_at = excluded.voided_at, created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'credit_notes: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'collected';
    IF written IS NOT NULL THEN
        UPDATE invoices
        SET stripe_invoice_id = collected.stripe_invoice_id,
            stripe_customer_id = COALESCE(collected.stripe_customer_id, invoices.stripe_customer_id)
        FROM jsonb_to_recordset(written) AS collected (id BIGINT, stripe_invoice_id TEXT, stripe_customer_id TEXT)
        WHERE invoices.id = collected.id AND invoices.kind = 'partner' AND invoices.contract_id IS NOT NULL
          AND invoices.stripe_invoice_id IS NULL AND invoices.collection_method = 'send_invoice'
          AND invoices.status = 'open'
          AND NOT EXISTS (SELECT FROM invoices AS other
                          WHERE other.stripe_invoice_id = collected.stripe_invoice_id AND NOT other.superseded);
    END IF;
    written := changes -> 'invoices';
    IF written IS NOT NULL THEN
        INSERT INTO invoices AS old (stripe_invoice_id, invoice_number, stripe_customer_id, stripe_subscription_id, status, currency, subtotal_cents, tax_cents, inclusive_tax_cents, discount_cents, pretax_credits_cents, shipping_cents, total_cents, due_before_credit_notes_cents, amount_paid_cents, amount_remaining_cents, names_payment, credit_notes_cents, billing_period_start, billing_period_end, due_date, paid_at, voided_at, uncollectible_at, finalized_at, deleted_at, attempt_count, next_payment_attempt_at, line_items, lines_complete, tax_breakdown, billing_reason, collection_method, invoice_pdf_url, notes, metadata, created_at, outside_stripe_stated_at, outside_stripe_stated_cents, source_created_at, source_rank, source_event_id, kind, amount_due_cents, out_of_band_cents, partial, user_id, updated_at)
        SELECT new.stripe_invoice_id, CASE WHEN EXISTS (SELECT FROM invoices AS other
                          WHERE other.invoice_number = new.invoice_number AND NOT other.superseded
                            AND other.stripe_invoice_id IS DISTINCT FROM new.stripe_invoice_id)
        THEN new.invoice_number || ' (' || new.stripe_invoice_id || ')' ELSE new.invoice_number END, new.stripe_customer_id, new.stripe_subscription_id, new.status, new.currency, new.subtotal_cents, new.tax_cents, new.inclusive_tax_cents, new.discount_cents, new.pretax_credits_cents, new.shipping_cents, new.total_cents, new.due_before_credit_notes_cents, new.amount_paid_cents, new.amount_remaining_cents, new.names_payment, new.credit_notes_cents, new.billing_period_start, new.billing_period_end, new.due_date, new.paid_at, new.voided_at, new.uncollectible_at, new.finalized_at, new.deleted_at, new.attempt_count, new.next_payment_attempt_at, jsonb_build_object('items', new.line_items), new.lines_complete, new.tax_breakdown, new.billing_reason, new.collection_method, new.invoice_pdf_url, new.notes, new.metadata, new.created_at, new.outside_stripe_stated_at, new.outside_stripe_stated_cents, new.source_created_at, new.source_rank, new.source_event_id, new.kind, new.amount_due_cents, new.out_of_band_cents, new.partial, (SELECT user_id FROM customers WHERE customers.stripe_customer_id = new.stripe_customer_id), at FROM jsonb_populate_recordset(CAST(NULL AS invoices), written) AS new
        ON CONFLICT (stripe_invoice_id) WHERE NOT superseded DO UPDATE SET stripe_invoice_id = excluded.stripe_invoice_id, invoice_number = CASE WHEN old.contract_id IS NULL THEN excluded.invoice_number ELSE old.invoice_number END, stripe_customer_id = excluded.stripe_customer_id, stripe_subscription_id = excluded.stripe_subscription_id, status = CASE WHEN old.contract_id IS NULL OR excluded.status <> 'draft' THEN excluded.status ELSE old.status END, currency = CASE WHEN old.contract_id IS NULL THEN excluded.currency ELSE old.currency END, subtotal_cents = CASE WHEN old.contract_id IS NULL THEN excluded.subtotal_cents ELSE old.subtotal_cents END, tax_cents = CASE WHEN old.contract_id IS NULL THEN excluded.tax_cents ELSE old.tax_cents END, inclusive_tax_cents = CASE WHEN old.contract_id IS NULL THEN excluded.inclusive_tax_cents ELSE old.inclusive_tax_cents END, discount_cents = CASE WHEN old.contract_id IS NULL THEN excluded.discount_cents ELSE old.discount_cents END, pretax_credits_cents = CASE WHEN old.contract_id IS NULL THEN excluded.pretax_credits_cents ELSE old.pretax_credits_cents END, shipping_cents = CASE WHEN old.contract_id IS NULL THEN excluded.shipping_cents ELSE old.shipping_cents END, total_cents = CASE WHEN old.contract_id IS NULL THEN excluded.total_cents ELSE old.total_cents END, due_before_credit_notes_cents = CASE WHEN old.contract_id IS NULL THEN excluded.due_before_credit_notes_cents ELSE old.due_before_credit_notes_cents END, amount_paid_cents = excluded.amount_paid_cents, amount_remaining_cents = excluded.amount_remaining_cents, names_payment = excluded.names_payment, credit_notes_cents = excluded.credit_notes_cents, billing_period_start = CASE WHEN old.contract_id IS NULL THEN excluded.billing_period_start ELSE old.billing_period_start END, billing_period_end = CASE WHEN old.contract_id IS NULL THEN excluded.billing_period_end ELSE old.billing_period_end END, due_date = CASE WHEN old.contract_id IS NULL THEN excluded.due_date ELSE old.due_date END, paid_at = excluded.paid_at, voided_at = excluded.voided_at, uncollectible_at = excluded.uncollectible_at, finalized_at = CASE WHEN old.contract_id IS NULL THEN excluded.finalized_at ELSE old.finalized_at END, deleted_at = excluded.deleted_at, attempt_count = excluded.attempt_count, next_payment_attempt_at = excluded.next_payment_attempt_at, line_items = CASE WHEN old.contract_id IS NULL THEN excluded.line_items ELSE old.line_items END, lines_complete = CASE WHEN old.contract_id IS NULL THEN excluded.lines_complete ELSE old.lines_complete END, tax_breakdown = CASE WHEN old.contract_id IS NULL THEN excluded.tax_breakdown ELSE old.tax_breakdown END, billing_reason = excluded.billing_reason, collection_method = CASE WHEN old.contract_id IS NULL THEN excluded.collection_method ELSE old.collection_method END, invoice_pdf_url = CASE WHEN old.contract_id IS NULL THEN excluded.invoice_pdf_url ELSE old.invoice_pdf_url END, notes = CASE WHEN old.contract_id IS NULL THEN excluded.notes ELSE old.notes END, metadata = CASE WHEN old.contract_id IS NULL THEN excluded.metadata ELSE old.metadata END, created_at = CASE WHEN old.contract_id IS NULL THEN excluded.created_at ELSE old.created_at END, outside_stripe_stated_at = excluded.outside_stripe_stated_at, outside_stripe_stated_cents = excluded.outside_stripe_stated_cents, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, kind = CASE WHEN old.contract_id IS NULL THEN excluded.kind ELSE old.kind END, amount_due_cents = CASE WHEN old.contract_id IS NULL OR excluded.status <> 'draft' THEN excluded.amount_due_cents ELSE old.amount_due_cents END, out_of_band_cents = excluded.out_of_band_cents, partial = excluded.partial, user_id = CASE WHEN old.contract_id IS NULL THEN excluded.user_id ELSE old.user_id END, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'invoices: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'void_invoices';
    IF written IS NOT NULL THEN
        WITH voided AS (
            UPDATE invoices SET credit_applied_cents = 0
            WHERE stripe_invoice_id IN (SELECT jsonb_array_elements_text(written))
              AND contract_id IS NOT NULL AND status = 'void' AND NOT superseded
            RETURNING id
        ), taken AS (
            DELETE FROM credit_applications WHERE invoice_id IN (SELECT id FROM voided)
            RETURNING credit_id, invoice_id, amount_cents
        )
        UPDATE credits
        SET remaining_cents = credits.remaining_cents + taken.amount_cents,
            applied_to_invoice_id = (SELECT before.invoice_id FROM credit_applications AS before
                                     WHERE before.credit_id = credits.id
                                       AND before.invoice_id <> taken.invoice_id
                                     ORDER BY before.id DESC LIMIT 1)
        FROM taken WHERE credits.id = taken.credit_id;
    END IF;
    written := changes -> 'payment_intents';
    IF written IS NOT NULL THEN
        INSERT INTO payment_intents AS old (stripe_payment_intent_id, stripe_customer_id, amount_cents, amount_received_cents, currency, status, latest_charge_id, stripe_invoice_id, payment_method, failure_code, decline_code, failure_message, succeeded_at, canceled_at, user_id, created_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_payment_intent_id, new.stripe_customer_id, new.amount_cents, new.amount_received_cents, new.currency, new.status, new.latest_charge_id, new.stripe_invoice_id, new.payment_method, new.failure_code, new.decline_code, new.failure_message, new.succeeded_at, new.canceled_at, new.user_id, new.created_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS payment_intents), written) AS new
        ON CONFLICT (stripe_payment_intent_id) DO UPDATE SET stripe_payment_intent_id = excluded.stripe_payment_intent_id, stripe_customer_id = excluded.stripe_customer_id, amount_cents = excluded.amount_cents, amount_received_cents = excluded.amount_received_cents, currency = excluded.currency, status = excluded.status, latest_charge_id = excluded.latest_charge_id, stripe_invoice_id = excluded.stripe_invoice_id, payment_method = excluded.payment_method, failure_code = excluded.failure_code, decline_code = excluded.decline_code, failure_message = excluded.failure_message, succeeded_at = excluded.succeeded_at, canceled_at = excluded.canceled_at, user_id = excluded.user_id, created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'payment_intents: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'payment_attempts';
    IF written IS NOT NULL THEN
        INSERT INTO payment_attempts AS old (stripe_charge_id, stripe_payment_intent_id, stripe_customer_id, stripe_invoice_id, amount_cents, amount_captured_cents, currency, status, captured, failure_code, decline_code, failure_message, payment_method, user_id, succeeded_at, refund_totals, stripe_balance_transaction_id, failure_balance_transaction_id, attempted_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_charge_id, new.stripe_payment_intent_id, new.stripe_customer_id, new.stripe_invoice_id, new.amount_cents, new.amount_captured_cents, new.currency, new.status, new.captured, new.failure_code, new.decline_code, new.failure_message, new.payment_method, new.user_id, new.succeeded_at, new.refund_totals, new.stripe_balance_transaction_id, new.failure_balance_transaction_id, new.attempted_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS payment_attempts), written) AS new
        ON CONFLICT (stripe_charge_id) DO UPDATE SET stripe_charge_id = excluded.stripe_charge_id, stripe_payment_intent_id = excluded.stripe_payment_intent_id, stripe_customer_id = excluded.stripe_customer_id, stripe_invoice_id = excluded.stripe_invoice_id, amount_cents = excluded.amount_cents, amount_captured_cents = excluded.amount_captured_cents, currency = excluded.currency, status = excluded.status, captured = excluded.captured, failure_code = excluded.failure_code, decline_code = excluded.decline_code, failure_message = excluded.failure_message, payment_method = excluded.payment_method, user_id = excluded.user_id, succeeded_at = excluded.succeeded_at, refund_totals = excluded.refund_totals, stripe_balance_transaction_id = excluded.stripe_balance_transaction_id, failure_balance_transaction_id = excluded.failure_balance_transaction_id, attempted_at = excluded.attempted_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'payment_attempts: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'refunds';
    IF written IS NOT NULL THEN
        INSERT INTO refunds AS old (stripe_refund_id, stripe_charge_id, stripe_payment_intent_id, amount_cents, currency, reason, status, stripe_balance_transaction_id, failure_balance_transaction_id, metadata, source, stripe_invoice_id, created_at, failed_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_refund_id, new.stripe_charge_id, new.stripe_payment_intent_id, new.amount_cents, new.currency, new.reason, new.status, new.stripe_balance_transaction_id, new.failure_balance_transaction_id, new.metadata, new.source, new.stripe_invoice_id, new.created_at, new.failed_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS refunds), written) AS new
        ON CONFLICT (stripe_refund_id) DO UPDATE SET stripe_refund_id = excluded.stripe_refund_id, stripe_charge_id = excluded.stripe_charge_id, stripe_payment_intent_id = excluded.stripe_payment_intent_id, amount_cents = excluded.amount_cents, currency = excluded.currency, reason = excluded.reason, status = excluded.status, stripe_balance_transaction_id = excluded.stripe_balance_transaction_id, failure_balance_transaction_id = excluded.failure_balance_transaction_id, metadata = excluded.metadata, source = excluded.source, stripe_invoice_id = excluded.stripe_invoice_id, created_at = excluded.created_at, failed_at = excluded.failed_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'refunds: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'disputes';
    IF written IS NOT NULL THEN
        INSERT INTO disputes AS old (stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id, amount_cents, currency, reason, status, balance_transaction_ids, funds_withdrawn_at, funds_reinstated_at, closed_at, evidence_due_by, created_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_dispute_id, new.stripe_charge_id, new.stripe_payment_intent_id, new.amount_cents, new.currency, new.reason, new.status, new.balance_transaction_ids, new.funds_withdrawn_at, new.funds_reinstated_at, new.closed_at, new.evidence_due_by, new.created_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS disputes), written) AS new
        ON CONFLICT (stripe_dispute_id) DO UPDATE SET stripe_dispute_id = excluded.stripe_dispute_id, stripe_charge_id = excluded.stripe_charge_id, stripe_payment_intent_id = excluded.stripe_payment_intent_id, amount_cents = excluded.amount_cents, currency = excluded.currency, reason = excluded.reason, status = excluded.status, balance_transaction_ids = excluded.balance_transaction_ids, funds_withdrawn_at = excluded.funds_withdrawn_at, funds_reinstated_at = excluded.funds_reinstated_at, closed_at = excluded.closed_at, evidence_due_by = excluded.evidence_due_by, created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'disputes: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'invoice_payments';
    IF written IS NOT NULL THEN
        INSERT INTO invoice_payments AS old (stripe_invoice_id, stripe_payment_intent_id, stripe_charge_id, stripe_payment_record_id, reported_by, stripe_invoice_payment_id, is_default, stripe_customer_id, amount_paid_cents, currency, status, paid_at, source_created_at, source_rank, source_event_id, link_key, partial, updated_at)
        SELECT new.stripe_invoice_id, new.stripe_payment_intent_id, new.stripe_charge_id, new.stripe_payment_record_id, new.reported_by, new.stripe_invoice_payment_id, new.is_default, new.stripe_customer_id, new.amount_paid_cents, new.currency, new.status, new.paid_at, new.source_created_at, new.source_rank, new.source_event_id, new.link_key, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS invoice_payments), written) AS new
        ON CONFLICT (link_key) DO UPDATE SET stripe_invoice_id = excluded.stripe_invoice_id, stripe_payment_intent_id = excluded.stripe_payment_intent_id, stripe_charge_id = excluded.stripe_charge_id, stripe_payment_record_id = excluded.stripe_payment_record_id, reported_by = excluded.reported_by, stripe_invoice_payment_id = excluded.stripe_invoice_payment_id, is_default = excluded.is_default, stripe_customer_id = excluded.stripe_customer_id, amount_paid_cents = excluded.amount_paid_cents, currency = excluded.currency, status = excluded.status, paid_at = excluded.paid_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, link_key = excluded.link_key, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'invoice_payments: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'balance_transactions';
    IF written IS NOT NULL THEN
        INSERT INTO balance_transactions AS old (stripe_balance_transaction_id, type, reporting_category, balance_type, currency, amount_cents, fee_cents, net_cents, fee_details, exchange_rate, source_id, source_kind, payment_key, description, created_at, available_at, stripe_payout_id, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_balance_transaction_id, new.type, new.reporting_category, new.balance_type, new.currency, new.amount_cents, new.fee_cents, new.net_cents, new.fee_details, new.exchange_rate, new.source_id, new.source_kind, new.payment_key, new.description, new.created_at, new.available_at, new.stripe_payout_id, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS balance_transactions), written) AS new
        ON CONFLICT (stripe_balance_transaction_id) DO UPDATE SET stripe_balance_transaction_id = excluded.stripe_balance_transaction_id, type = excluded.type, reporting_category = excluded.reporting_category, balance_type = excluded.balance_type, currency = excluded.currency, amount_cents = excluded.amount_cents, fee_cents = excluded.fee_cents, net_cents = excluded.net_cents, fee_details = excluded.fee_details, exchange_rate = excluded.exchange_rate, source_id = excluded.source_id, source_kind = excluded.source_kind, payment_key = excluded.payment_key, description = excluded.description, created_at = excluded.created_at, available_at = excluded.available_at, stripe_payout_id = excluded.stripe_payout_id, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'balance_transactions: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'payouts';
    IF written IS NOT NULL THEN
        INSERT INTO payouts AS old (stripe_payout_id, amount_cents, currency, status, automatic, method, arrival_on, trace_id, reconciliation_status, stripe_balance_transaction_id, failure_balance_transaction_id, failure_code, created_at, transactions_listed_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_payout_id, new.amount_cents, new.currency, new.status, new.automatic, new.method, new.arrival_on, new.trace_id, new.reconciliation_status, new.stripe_balance_transaction_id, new.failure_balance_transaction_id, new.failure_code, new.created_at, new.transactions_listed_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS payouts), written) AS new
        ON CONFLICT (stripe_payout_id) DO UPDATE SET stripe_payout_id = excluded.stripe_payout_id, amount_cents = excluded.amount_cents, currency = excluded.currency, status = excluded.status, automatic = excluded.automatic, method = excluded.method, arrival_on = excluded.arrival_on, trace_id = excluded.trace_id, reconciliation_status = excluded.reconciliation_status, stripe_balance_transaction_id = excluded.stripe_balance_transaction_id, failure_balance_transaction_id = excluded.failure_balance_transaction_id, failure_code = excluded.failure_code, created_at = excluded.created_at, transactions_listed_at = excluded.transactions_listed_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'payouts: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'tax_rates';
    IF written IS NOT NULL THEN
        INSERT INTO tax_rates AS old (stripe_tax_rate_id, display_name, percentage, country, state, jurisdiction, tax_type, inclusive, created_at, source_created_at, source_rank, source_event_id, partial, updated_at)
        SELECT new.stripe_tax_rate_id, new.display_name, new.percentage, new.country, new.state, new.jurisdiction, new.tax_type, new.inclusive, new.created_at, new.source_created_at, new.source_rank, new.source_event_id, new.partial, at FROM jsonb_populate_recordset(CAST(NULL AS tax_rates), written) AS new
        ON CONFLICT (stripe_tax_rate_id) DO UPDATE SET stripe_tax_rate_id = excluded.stripe_tax_rate_id, display_name = excluded.display_name, percentage = excluded.percentage, country = excluded.country, state = excluded.state, jurisdiction = excluded.jurisdiction, tax_type = excluded.tax_type, inclusive = excluded.inclusive, created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, source_event_id = excluded.source_event_id, partial = excluded.partial, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'tax_rates: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'obsolete_payments';
    IF written IS NOT NULL THEN
        DELETE FROM payment_history WHERE payment_key IN (SELECT jsonb_array_elements_text(written));
    END IF;
    written := changes -> 'payment_history';
    IF written IS NOT NULL THEN
        INSERT INTO payment_history AS old (payment_key, stripe_payment_intent_id, stripe_charge_id, stripe_customer_id, stripe_invoice_id, user_id, amount_cents, currency, status, payment_method, stripe_fee_cents, fee_source, net_amount_cents, failure_code, decline_code, failure_message, refunded_at, refund_reason, refund_amount_cents, stripe_balance_transaction_id, succeeded_at, dispute_status, disputed_amount_cents, created_at, settlement_currency, settlement_amount_cents, settlement_fee_cents, exchange_rate, invoice_id, updated_at)
        SELECT new.payment_key, new.stripe_payment_intent_id, new.stripe_charge_id, new.stripe_customer_id, new.stripe_invoice_id, COALESCE((SELECT user_id FROM customers WHERE customers.stripe_customer_id = new.stripe_customer_id),
              (SELECT max(user_id) FROM checkout_sessions
               WHERE checkout_sessions.stripe_payment_intent_id = new.stripe_payment_intent_id),
              new.user_id), new.amount_cents, new.currency, new.status, new.payment_method, new.stripe_fee_cents, new.fee_source, new.net_amount_cents, new.failure_code, new.decline_code, new.failure_message, new.refunded_at, new.refund_reason, new.refund_amount_cents, new.stripe_balance_transaction_id, new.succeeded_at, new.dispute_status, new.disputed_amount_cents, new.created_at, new.settlement_currency, new.settlement_amount_cents, new.settlement_fee_cents, new.exchange_rate, (SELECT id FROM invoices WHERE invoices.stripe_invoice_id = new.stripe_invoice_id AND NOT superseded), at FROM jsonb_populate_recordset(CAST(NULL AS payment_history), written) AS new
        ON CONFLICT (payment_key) DO UPDATE SET payment_key = excluded.payment_key, stripe_payment_intent_id = excluded.stripe_payment_intent_id, stripe_charge_id = excluded.stripe_charge_id, stripe_customer_id = excluded.stripe_customer_id, stripe_invoice_id = excluded.stripe_invoice_id, user_id = excluded.user_id, amount_cents = excluded.amount_cents, currency = excluded.currency, status = excluded.status, payment_method = excluded.payment_method, stripe_fee_cents = excluded.stripe_fee_cents, fee_source = excluded.fee_source, net_amount_cents = excluded.net_amount_cents, failure_code = excluded.failure_code, decline_code = excluded.decline_code, failure_message = excluded.failure_message, refunded_at = excluded.refunded_at, refund_reason = excluded.refund_reason, refund_amount_cents = excluded.refund_amount_cents, stripe_balance_transaction_id = excluded.stripe_balance_transaction_id, succeeded_at = excluded.succeeded_at, dispute_status = excluded.dispute_status, disputed_amount_cents = excluded.disputed_amount_cents, created_at = excluded.created_at, settlement_currency = excluded.settlement_currency, settlement_amount_cents = excluded.settlement_amount_cents, settlement_fee_cents = excluded.settlement_fee_cents, exchange_rate = excluded.exchange_rate, invoice_id = excluded.invoice_id, updated_at = excluded.updated_at;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'payment_history: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'invoices_of_payments';
    IF written IS NOT NULL THEN
        UPDATE payment_history SET invoice_id = invoices.id
        FROM invoices
        WHERE invoices.stripe_invoice_id = ANY (ARRAY(SELECT jsonb_array_elements_text(written)))
          AND NOT invoices.superseded AND payment_history.stripe_invoice_id = invoices.stripe_invoice_id
          AND payment_history.invoice_id IS DISTINCT FROM invoices.id;
    END IF;
    written := changes -> 'store_credits';
    IF written IS NOT NULL THEN
        INSERT INTO credits (stripe_refund_id, stripe_customer_id, user_id, invoice_id, amount_cents,
            remaining_cents, currency, reason, description, created_by, created_at)
        SELECT refund.stripe_refund_id, payment.stripe_customer_id, payment.user_id, payment.invoice_id,
            refund.amount_cents, refund.remaining_cents, refund.currency, 'refund',
            'Refund issued as store credit', 'stripe', refund.created_at
        FROM jsonb_to_recordset(written) AS refund (stripe_refund_id TEXT, amount_cents BIGINT,
            remaining_cents BIGINT, currency TEXT, created_at TIMESTAMPTZ, stripe_payment_intent_id TEXT,
            stripe_charge_id TEXT)
        LEFT JOIN LATERAL (
            SELECT stripe_customer_id, user_id, invoice_id FROM payment_history
            WHERE stripe_payment_intent_id = refund.stripe_payment_intent_id
               OR stripe_charge_id = refund.stripe_charge_id
            ORDER BY superseded, id LIMIT 1
        ) AS payment ON true
        ON CONFLICT (stripe_refund_id) DO UPDATE SET
            stripe_customer_id = excluded.stripe_customer_id, user_id = excluded.user_id,
            invoice_id = excluded.invoice_id,
            remaining_cents = least(credits.remaining_cents, excluded.remaining_cents);
    END IF;
    written := changes -> 'revoked_credits';
    IF written IS NOT NULL THEN
        DELETE FROM credits
        WHERE stripe_refund_id IN (SELECT jsonb_array_elements_text(written)) AND applied_to_invoice_id IS NULL
          AND NOT EXISTS (SELECT FROM credit_applications WHERE credit_id = credits.id);
    END IF;
    written := changes -> 'lookups';
    IF written IS NOT NULL THEN
        DELETE FROM stripe_lookups
        WHERE subject = ANY (ARRAY(SELECT jsonb_array_elements_text(written -> 'judged'))) AND done_at IS NULL
          AND NOT EXISTS (
              SELECT FROM jsonb_to_recordset(written -> 'wanted') AS wanted (subject TEXT, kind TEXT,
                  stripe_id TEXT, reason TEXT)
              WHERE wanted.subject = stripe_lookups.subject AND wanted.kind = stripe_lookups.kind
                AND wanted.stripe_id = stripe_lookups.stripe_id AND wanted.reason = stripe_lookups.reason);
        MERGE INTO stripe_lookups AS stored
        USING jsonb_to_recordset(written -> 'wanted') AS wanted (subject TEXT, subject_type TEXT, event_id TEXT,
            kind TEXT, stripe_id TEXT, reason TEXT, requested_at TIMESTAMPTZ, due_at TIMESTAMPTZ, currency TEXT,
            figure_at TIMESTAMPTZ, amount_cents BIGINT)
        ON stored.subject = wanted.subject AND stored.kind = wanted.kind AND stored.stripe_id = wanted.stripe_id
           AND stored.reason = wanted.reason AND stored.done_at IS NULL AND stored.subject <> ''
        WHEN MATCHED THEN UPDATE SET
            event_id = wanted.event_id, requested_at = wanted.requested_at, due_at = wanted.due_at,
            currency = wanted.currency, figure_at = wanted.figure_at, amount_cents = wanted.amount_cents
        WHEN NOT MATCHED THEN INSERT (subject, subject_type, event_id, kind, stripe_id, reason, requested_at,
            due_at, currency, figure_at, amount_cents)
        VALUES (wanted.subject, wanted.subject_type, wanted.event_id, wanted.kind, wanted.stripe_id, wanted.reason,
            wanted.requested_at, wanted.due_at, wanted.currency, wanted.figure_at, wanted.amount_cents);
    END IF;
    written := changes -> 'known_tax_rates';
    IF written IS NOT NULL THEN
        WITH known AS (
            SELECT jsonb_array_elements_text(written) AS id
        ), waiting AS (
            SELECT DISTINCT subject FROM stripe_lookups
            WHERE kind = 'tax_rate' AND stripe_id IN (SELECT id FROM known) AND subject <> ''
        ), complete AS (
            SELECT subject FROM waiting
            WHERE NOT EXISTS (SELECT FROM stripe_lookups AS other
                              WHERE other.subject = waiting.subject AND other.reason = 'tax_rate'
                                AND other.done_at IS NULL AND NOT other.stripe_id IN (SELECT id FROM known))
        ), invoiced AS (
            UPDATE invoices SET partial = array_remove(partial, 'tax_rate')
            WHERE stripe_invoice_id IN (SELECT subject FROM complete) AND 'tax_rate' = ANY (partial)
              AND NOT superseded
        ), credited AS (
            UPDATE credit_notes SET partial = array_remove(partial, 'tax_rate')
            WHERE stripe_credit_note_id IN (SELECT subject FROM complete) AND 'tax_rate' = ANY (partial)
        )
        DELETE FROM stripe_lookups
        WHERE kind = 'tax_rate' AND stripe_id IN (SELECT id FROM known) AND subject <> '' AND done_at IS NULL;
    END IF;
    written := changes -> 'relinked_customers';
    IF written IS NOT NULL THEN
        UPDATE subscriptions SET user_id = customers.user_id FROM customers
        WHERE customers.stripe_customer_id IN (SELECT jsonb_array_elements_text(written))
          AND customers.user_id IS NOT NULL AND subscriptions.stripe_customer_id = customers.stripe_customer_id
          AND subscriptions.user_id IS DISTINCT FROM customers.user_id;
        UPDATE invoices SET user_id = customers.user_id FROM customers
        WHERE customers.stripe_customer_id IN (SELECT jsonb_array_elements_text(written))
          AND customers.user_id IS NOT NULL AND invoices.stripe_customer_id = customers.stripe_customer_id
          AND invoices.user_id IS DISTINCT FROM customers.user_id;
        UPDATE credits SET user_id = customers.user_id FROM customers
        WHERE customers.stripe_customer_id IN (SELECT jsonb_array_elements_text(written))
          AND customers.user_id IS NOT NULL AND credits.stripe_customer_id = customers.stripe_customer_id
          AND credits.user_id IS DISTINCT FROM customers.user_id;
        UPDATE payment_history SET user_id = customers.user_id FROM customers
        WHERE customers.stripe_customer_id IN (SELECT jsonb_array_elements_text(written))
          AND customers.user_id IS NOT NULL AND payment_history.stripe_customer_id = customers.stripe_customer_id
          AND payment_history.user_id IS DISTINCT FROM customers.user_id;
    END IF;
    written := changes -> 'claimed_users';
    IF written IS NOT NULL THEN
        WITH named AS (
            SELECT CAST(jsonb_array_elements_text(written) AS INTEGER) AS id
        ), filled AS (
            UPDATE users SET stripe_customer_id = claimant.stripe_customer_id
            FROM named LEFT JOIN LATERAL (
                SELECT stripe_customer_id FROM customers
                WHERE customers.user_id = named.id AND user_link_rank > 0
                ORDER BY user_link_at, stripe_customer_id LIMIT 1
            ) AS claimant ON true
            WHERE users.id = named.id AND users.stripe_customer_id IS DISTINCT FROM claimant.stripe_customer_id
              AND (users.stripe_customer_id IS NULL OR EXISTS (
                  SELECT FROM customers AS holder
                  WHERE holder.stripe_customer_id = users.stripe_customer_id AND holder.user_link_filled))
            RETURNING users.id, users.stripe_customer_id
        )
        UPDATE customers
        SET user_link_filled = (customers.stripe_customer_id = filled.stripe_customer_id)
        FROM filled WHERE customers.user_id = filled.id;
    END IF;
    written := changes -> 'plans_set';
    IF written IS NOT NULL THEN
        INSERT INTO user_plans AS stored (user_id, plan_before, plan_set)
        SELECT users.id, users.plan, wanted.plan
        FROM jsonb_to_recordset(written) AS wanted (user_id INTEGER, plan TEXT) JOIN users ON users.id = user_id
        ORDER BY users.id
        ON CONFLICT (user_id) DO UPDATE SET
            plan_before = CASE WHEN excluded.plan_before IS DISTINCT FROM stored.plan_set
                               THEN excluded.plan_before ELSE stored.plan_before END,
            plan_set = excluded.plan_set;
        UPDATE users SET plan = wanted.plan
        FROM jsonb_to_recordset(written) AS wanted (user_id INTEGER, plan TEXT)
        WHERE users.id = wanted.user_id AND users.plan IS DISTINCT FROM wanted.plan;
    END IF;
    written := changes -> 'plans_restored';
    IF written IS NOT NULL THEN
        WITH remembered AS (
            DELETE FROM user_plans
            WHERE user_id IN (SELECT CAST(jsonb_array_elements_text(written) AS INTEGER))
            RETURNING user_id, plan_before, plan_set
        )
        UPDATE users SET plan = remembered.plan_before FROM remembered
        WHERE users.id = remembered.user_id AND users.plan = remembered.plan_set
          AND users.plan IS DISTINCT FROM remembered.plan_before;
    END IF;
    written := changes -> 'outbox';
    IF written IS NOT NULL THEN
        WITH new AS (
            INSERT INTO outbox (detail_type, dedupe_key, detail, created_at)
            SELECT detail_type, dedupe_key, detail, at
            FROM jsonb_to_recordset(written) AS message (place INTEGER, detail_type TEXT, dedupe_key TEXT,
                detail JSONB)
            ORDER BY place
            ON CONFLICT (dedupe_key) DO NOTHING
            RETURNING id, detail_type, dedupe_key, detail
        )
        SELECT json_agg(new ORDER BY id) INTO messages FROM new;
    END IF;
    written := changes -> 'subscription_versions';
    IF written IS NOT NULL THEN
        INSERT INTO subscription_versions AS old (stripe_subscription_id, stripe_customer_id, source_event_id, source_created_at, source_rank, occurred_at, status, currency, mrr_microcents, potential_mrr_microcents, mrr_provisional, waits_for, missing, plan_name, overruled, set_to_cancel, is_counted, all_discounts_microcents, no_discounts_microcents, discount_steps)
        SELECT new.stripe_subscription_id, new.stripe_customer_id, new.source_event_id, new.source_created_at, new.source_rank, new.occurred_at, new.status, new.currency, new.mrr_microcents, new.potential_mrr_microcents, new.mrr_provisional, new.waits_for, new.missing, new.plan_name, new.overruled, new.set_to_cancel, new.is_counted, new.all_discounts_microcents, new.no_discounts_microcents, new.discount_steps FROM jsonb_populate_recordset(CAST(NULL AS subscription_versions), written) AS new
        ON CONFLICT (stripe_subscription_id, source_event_id) DO UPDATE SET stripe_subscription_id = excluded.stripe_subscription_id, stripe_customer_id = excluded.stripe_customer_id, source_event_id = excluded.source_event_id, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank, occurred_at = excluded.occurred_at, status = excluded.status, currency = excluded.currency, mrr_microcents = excluded.mrr_microcents, potential_mrr_microcents = excluded.potential_mrr_microcents, mrr_provisional = excluded.mrr_provisional, waits_for = excluded.waits_for, missing = excluded.missing, plan_name = excluded.plan_name, overruled = excluded.overruled, set_to_cancel = excluded.set_to_cancel, is_counted = excluded.is_counted, all_discounts_microcents = excluded.all_discounts_microcents, no_discounts_microcents = excluded.no_discounts_microcents, discount_steps = excluded.discount_steps;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION 'subscription_versions: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;
    END IF;
    written := changes -> 'fetched_objects';
    IF written IS NOT NULL THEN
        INSERT INTO fetched_objects (source_event_id, stripe_subscription_id, payload, fetched_at)
        SELECT source_event_id, stripe_subscription_id, payload, fetched_at
        FROM jsonb_to_recordset(written) AS fetched (source_event_id TEXT, stripe_subscription_id TEXT,
            payload JSONB, fetched_at TIMESTAMPTZ)
        WHERE EXISTS (
            SELECT FROM subscription_versions AS version
            WHERE version.stripe_subscription_id = fetched.stripe_subscription_id
              AND version.source_event_id = fetched.source_event_id AND version.waits_for <> '{}')
        ON CONFLICT (source_event_id) DO NOTHING;
    END IF;
    written := changes -> 'repriced';
    IF written IS NOT NULL THEN
        DELETE FROM fetched_objects
        USING subscription_versions AS version
        WHERE fetched_objects.source_event_id IN (SELECT jsonb_array_elements_text(written))
          AND version.stripe_subscription_id = fetched_objects.stripe_subscription_id
          AND version.source_event_id = fetched_objects.source_event_id AND version.waits_for = '{}';
    END IF;
    written := changes -> 'mrr_movements';
    IF written IS NOT NULL THEN
        DELETE FROM mrr_movements AS stored
        WHERE stored.stripe_customer_id = ANY (ARRAY(SELECT jsonb_object_keys(written)))
          AND NOT EXISTS (
              SELECT FROM jsonb_to_recordset(written -> stored.stripe_customer_id)
                  AS wanted (occurred_at TIMESTAMPTZ, currency TEXT)
              WHERE wanted.occurred_at = stored.occurred_at AND wanted.currency = stored.currency);
        INSERT INTO mrr_movements AS stored (occurred_at, stripe_customer_id, stripe_subscription_id, kind, currency,
            delta_microcents, before_microcents, after_microcents, cause_event_id, churned_at, churned_microcents)
        SELECT wanted.occurred_at, customer.key, wanted.stripe_subscription_id, wanted.kind, wanted.currency,
            wanted.delta_microcents, wanted.before_microcents, wanted.after_microcents, wanted.cause_event_id,
            CASE WHEN wanted.kind = 'reactivation' THEN lag(wanted.occurred_at) OVER earlier END,
            CASE WHEN wanted.kind = 'reactivation' THEN lag(wanted.before_microcents) OVER earlier END
        FROM jsonb_each(written) AS customer, jsonb_to_recordset(customer.value) AS wanted (
            occurred_at TIMESTAMPTZ, stripe_subscription_id TEXT, kind TEXT, currency TEXT,
            delta_microcents BIGINT, before_microcents BIGINT, after_microcents BIGINT, cause_event_id TEXT)
        WINDOW earlier AS (PARTITION BY customer.key, wanted.currency ORDER BY wanted.occurred_at)
        ON CONFLICT (stripe_customer_id, currency, occurred_at) DO UPDATE SET
            stripe_subscription_id = excluded.stripe_subscription_id, kind = excluded.kind,
            delta_microcents = excluded.delta_microcents, before_microcents = excluded.before_microcents,
            after_microcents = excluded.after_microcents, cause_event_id = excluded.cause_event_id,
            churned_at = excluded.churned_at, churned_microcents = excluded.churned_microcents
        WHERE (stored.stripe_subscription_id, stored.kind, stored.delta_microcents, stored.before_microcents,
               stored.after_microcents, stored.cause_event_id, stored.churned_at, stored.churned_microcents)
            IS DISTINCT FROM (excluded.stripe_subscription_id, excluded.kind, excluded.delta_microcents,
               excluded.before_microcents, excluded.after_microcents, excluded.cause_event_id, excluded.churned_at,
               excluded.churned_microcents);
    END IF;
    written := changes -> 'entries_removed';
    IF written IS NOT NULL THEN
        DELETE FROM revenue_entries
        USING jsonb_to_recordset(written) AS removed (payment_key TEXT, kind TEXT, source_id TEXT)
        WHERE revenue_entries.payment_key = removed.payment_key AND revenue_entries.kind = removed.kind
          AND revenue_entries.source_id = removed.source_id;
    END IF;
    written := changes -> 'entries';
    IF written IS NOT NULL THEN
        INSERT INTO revenue_entries (payment_key, kind, source_id, day, currency, amount_cents, is_estimated,
            occurred_at)
        SELECT payment_key, kind, source_id, day, currency, amount_cents, is_estimated, occurred_at
        FROM jsonb_to_recordset(written) AS added (payment_key TEXT, kind TEXT, source_id TEXT, day DATE,
            currency TEXT, amount_cents BIGINT, is_estimated BOOLEAN, occurred_at TIMESTAMPTZ)
        ON CONFLICT (payment_key, kind, source_id) DO UPDATE SET
            day = excluded.day, occurred_at = excluded.occurred_at, currency = excluded.currency,
            amount_cents = excluded.amount_cents, is_estimated = excluded.is_estimated;
    END IF;
    written := changes -> 'revenue_daily';
    IF written IS NOT NULL THEN
        INSERT INTO revenue_daily AS stored (day, currency, gross_cents, fees_cents, refunds_cents, disputes_cents,
            payments, failed_payments, estimated_fees)
        SELECT day, currency, gross_cents, fees_cents, refunds_cents, disputes_cents, payments, failed_payments,
            estimated_fees
        FROM jsonb_to_recordset(written) AS delta (day DATE, currency TEXT, gross_cents BIGINT, fees_cents BIGINT,
            refunds_cents BIGINT, disputes_cents BIGINT, payments BIGINT, failed_payments BIGINT,
            estimated_fees BIGINT)
        ORDER BY day, currency
        ON CONFLICT (day, currency) DO UPDATE SET
            gross_cents = stored.gross_cents + excluded.gross_cents,
            fees_cents = stored.fees_cents + excluded.fees_cents,
            refunds_cents = stored.refunds_cents + excluded.refunds_cents,
            disputes_cents = stored.disputes_cents + excluded.disputes_cents,
            payments = stored.payments + excluded.payments,
            failed_payments = stored.failed_payments + excluded.failed_payments,
            estimated_fees = stored.estimated_fees + excluded.estimated_fees;
    END IF;
    written := changes -> 'emptied_days';
    IF written IS NOT NULL THEN
        DELETE FROM revenue_daily
        USING jsonb_to_recordset(written) AS moved (day DATE, currency TEXT)
        WHERE revenue_daily.day = moved.day AND revenue_daily.currency = moved.currency
          AND gross_cents = 0 AND fees_cents = 0 AND refunds_cents = 0 AND disputes_cents = 0
          AND payments = 0 AND failed_payments = 0 AND estimated_fees = 0
          AND NOT EXISTS (SELECT FROM revenue_entries
                          WHERE revenue_entries.day = moved.day AND revenue_entries.currency = moved.currency);
    END IF;
    written := changes -> 'balance_daily';
    IF written IS NOT NULL THEN
        INSERT INTO balance_daily AS stored (day, balance_type, currency, reporting_category, amount_cents, fee_cents,
            net_cents, count)
        SELECT day, balance_type, currency, reporting_category, amount_cents, fee_cents, net_cents, count
        FROM jsonb_to_recordset(written) AS delta (day DATE, balance_type TEXT, currency TEXT,
            reporting_category TEXT, amount_cents BIGINT, fee_cents BIGINT, net_cents BIGINT, count BIGINT)
        ORDER BY day, balance_type, currency, reporting_category
        ON CONFLICT (day, balance_type, currency, reporting_category) DO UPDATE SET
            amount_cents = stored.amount_cents + excluded.amount_cents,
            fee_cents = stored.fee_cents + excluded.fee_cents,
            net_cents = stored.net_cents + excluded.net_cents, count = stored.count + excluded.count;
        -- A day that its last transaction has left is as if it had never been.
        DELETE FROM balance_daily
        USING jsonb_to_recordset(written) AS delta (day DATE, balance_type TEXT, currency TEXT,
            reporting_category TEXT, count BIGINT)
        WHERE delta.count < 0 AND balance_daily.count = 0
          AND (balance_daily.day, balance_daily.balance_type, balance_daily.currency,
               balance_daily.reporting_category)
            = (delta.day, delta.balance_type, delta.currency, delta.reporting_category);
    END IF;
    RETURN messages;
END
$$;
