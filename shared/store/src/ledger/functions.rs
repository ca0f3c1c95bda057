//! The text of the ledger's functions, made of the descriptions of the mirrored tables.

use crate::mirror::{self, Mirrored};
use domain::payment::{Charge, Dispute, InvoicePayment, Payment, PaymentIntent, Refund};
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::balance::{BalanceTransaction, Payout, TaxRate};
use domain::stripe_objects::catalog::{CouponSnapshot, DiscountSnapshot, PriceSnapshot};
use domain::stripe_objects::customer::{CheckoutSession, Customer};
use domain::stripe_objects::invoice::{CreditNote, Invoice};
use domain::stripe_objects::objects::Ids;
use domain::stripe_objects::subscription::Subscription;

/// What the functions are made with: their plans never depend on the values, and a table that was empty when a session
/// planned does not make them scan it when it has grown.
const SETTINGS: &str =
    "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off";

/// A member of what `read` answers, under a condition on what is named, and the query of it.
struct Part {
    name: &'static str,
    condition: &'static str,
    query: String,
}

fn part(name: &'static str, condition: &'static str, query: impl Into<String>) -> Part {
    let query = query.into();
    Part {
        name,
        condition,
        query,
    }
}

const OF_REACHED: &str =
    "stripe_charge_id = ANY (reached_charges) OR stripe_payment_intent_id = ANY (reached_intents)";

fn parts() -> Vec<Part> {
    let customers = "cardinality(named_customers) > 0";
    let subscriptions = "cardinality(named_subscriptions) > 0";
    let sessions =
        "cardinality(named_subscriptions || named_checkout_sessions || named_payment_intents) > 0";
    let invoices = "cardinality(named_invoices || named_credit_notes) > 0";
    let payments = "has_payments";
    let prices = "cardinality(named_prices) > 0";
    let coupons = "cardinality(named_coupons || named_discounts) > 0";
    let discounts = "cardinality(named_discounts) > 0";
    let transactions = "has_payments OR cardinality(named_balance_transactions) > 0";
    let payouts = "cardinality(named_payouts) > 0";
    let tax_rates = "cardinality(named_tax_rates || named_invoices || named_credit_notes) > 0";
    let users = "cardinality(user_ids) > 0";
    let read = |of_table: &str| format!("{OF_REACHED} OR {of_table}");
    vec![
        part(
            "customers",
            customers,
            mirror::select::<Customer>("stripe_customer_id = ANY (named_customers)"),
        ),
        part(
            "users_of_customers",
            customers,
            "SELECT json_object_agg(stripe_customer_id, user_id) FROM customers
             WHERE stripe_customer_id = ANY (named_customers)",
        ),
        part(
            "checkout_sessions",
            sessions,
            mirror::select::<CheckoutSession>(
                "stripe_checkout_session_id = ANY (named_checkout_sessions)
                 OR stripe_subscription_id = ANY (named_subscriptions)
                 OR stripe_payment_intent_id = ANY (named_payment_intents)",
            ),
        ),
        part(
            "subscriptions",
            subscriptions,
            mirror::select::<Subscription>(
                "stripe_subscription_id = ANY (named_subscriptions) AND NOT superseded AND source_event_id <> ''
                 AND stripe_customer_id IS NOT NULL AND created_at IS NOT NULL",
            ),
        ),
        part(
            "versions",
            subscriptions,
            mirror::select::<SubscriptionVersion>(
                "stripe_customer_id = ANY (named_customers) OR stripe_subscription_id = ANY (named_subscriptions)",
            ),
        ),
        part(
            "plan_prices",
            subscriptions,
            "SELECT json_agg(json_build_array(stripe_price_id, plan_name) ORDER BY stripe_price_id) FROM plan_prices",
        ),
        part(
            "plans",
            subscriptions,
            "SELECT json_agg(plan_name ORDER BY plan_name) FROM plan_limits",
        ),
        part(
            "invoices",
            invoices,
            mirror::select::<Invoice>(
                "stripe_invoice_id = ANY (named_invoices) AND NOT superseded AND source_event_id <> ''",
            ),
        ),
        part(
            "credit_notes",
            invoices,
            mirror::select::<CreditNote>(
                "stripe_credit_note_id = ANY (named_credit_notes) OR stripe_invoice_id = ANY (named_invoices)",
            ),
        ),
        part(
            "payment_intents",
            payments,
            mirror::select::<PaymentIntent>("stripe_payment_intent_id = ANY (reached_intents)"),
        ),
        part(
            "charges",
            payments,
            mirror::select::<Charge>("stripe_charge_id = ANY (reached_charges)"),
        ),
        part(
            "refunds",
            payments,
            mirror::select::<Refund>(&read("stripe_refund_id = ANY (named_refunds)")),
        ),
        part(
            "disputes",
            payments,
            mirror::select::<Dispute>(&read("stripe_dispute_id = ANY (named_disputes)")),
        ),
        part(
            "invoice_payments",
            payments,
            mirror::select::<InvoicePayment>(&read(
                "stripe_invoice_id = ANY (named_invoices) OR stripe_payment_record_id = ANY (reached_records)",
            )),
        ),
        // An invoice that was paid with money, of whatever reached payment.
        part(
            "invoices_paid_at",
            payments,
            "SELECT json_object_agg(invoices.stripe_invoice_id, invoices.paid_at)
             FROM invoices
             WHERE invoices.stripe_invoice_id = ANY (ARRAY(
                       SELECT stripe_invoice_id FROM invoice_payments
                       WHERE stripe_charge_id = ANY (reached_charges)
                          OR stripe_payment_intent_id = ANY (reached_intents)))
               AND invoices.status = 'paid' AND invoices.paid_at IS NOT NULL AND invoices.out_of_band_cents = 0
               AND invoices.source_event_id <> '' AND NOT invoices.superseded",
        ),
        part(
            "entries",
            payments,
            "SELECT json_agg(one) FROM (
                 SELECT payment_key, kind, source_id, occurred_at, currency, amount_cents, is_estimated
                 FROM revenue_entries
                 WHERE payment_key = ANY (reached_charges || reached_intents || reached_records || named_invoices
                     || named_credit_notes
                     -- What a note paid back belongs to no payment while its invoice has none outside Stripe.
                     || ARRAY(SELECT stripe_credit_note_id FROM credit_notes
                              WHERE stripe_invoice_id = ANY (named_invoices)))
             ) AS one",
        ),
        part(
            "prices",
            prices,
            mirror::select::<PriceSnapshot>("stripe_price_id = ANY (named_prices)"),
        ),
        part(
            "coupons",
            coupons,
            mirror::select::<CouponSnapshot>(
                "stripe_coupon_id = ANY (named_coupons || ARRAY(
                     SELECT stripe_coupon_id FROM discounts
                     WHERE stripe_coupon_id IS NOT NULL
                       AND (stripe_discount_id = ANY (named_discounts)
                            OR stripe_customer_id = ANY (named_discounts) AND stripe_subscription_id IS NULL)))",
            ),
        ),
        part(
            "discounts",
            discounts,
            // A customer's are those that are of no subscription.
            mirror::select::<DiscountSnapshot>(
                "stripe_discount_id = ANY (named_discounts)
                 OR stripe_customer_id = ANY (named_discounts) AND stripe_subscription_id IS NULL",
            ),
        ),
        part(
            "balance_transactions",
            transactions,
            mirror::select::<BalanceTransaction>(
                "stripe_balance_transaction_id = ANY (named_balance_transactions)
                 OR payment_key = ANY (reached_charges || reached_intents)
                 OR source_id = ANY (named_charges || named_refunds || named_disputes)",
            ),
        ),
        part(
            "payouts",
            payouts,
            mirror::select::<Payout>("stripe_payout_id = ANY (named_payouts)"),
        ),
        part(
            "tax_rates",
            tax_rates,
            mirror::select::<TaxRate>(
                "stripe_tax_rate_id = ANY (named_tax_rates || ARRAY(
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
                     ) AS named))",
            ),
        ),
        part(
            "users",
            users,
            "SELECT json_agg(json_build_array(id, stripe_customer_id)) FROM users WHERE id = ANY (user_ids)",
        ),
        part(
            "entitling",
            users,
            "SELECT json_agg(one) FROM (
                 SELECT stripe_subscription_id, stripe_customer_id, user_id, status, plan_name, started_at,
                        source_event_id = '' AS is_named_only,
                        source_event_id = '' AND EXISTS (
                            SELECT FROM checkout_sessions
                            WHERE checkout_sessions.stripe_subscription_id = subscriptions.stripe_subscription_id
                              AND checkout_sessions.payment_status IN ('paid', 'no_payment_required')) AS is_bought
                 FROM subscriptions
                 WHERE (user_id = ANY (user_ids) OR stripe_customer_id = ANY (named_customers))
                   AND stripe_subscription_id IS NOT NULL AND NOT superseded
             ) AS one",
        ),
    ]
}

fn read_function() -> String {
    let parts = parts();
    let parameters: String = Ids::KINDS
        .map(|kind| format!("named_{kind} TEXT[], "))
        .concat();
    let variables: String = parts
        .iter()
        .map(|part| format!("    found_{} JSON;\n", part.name))
        .collect();
    let reads: String = parts
        .iter()
        .map(
            |Part {
                 name,
                 condition,
                 query,
             }| {
                format!(
                    "    IF {condition} THEN\n        found_{name} := ({});\n    END IF;\n",
                    indented(query, 8)
                )
            },
        )
        .collect();
    let members = parts
        .iter()
        .map(|part| format!("'{0}', found_{0}", part.name));
    let members = members.collect::<Vec<_>>().join(",\n        ");
    format!(
        "CREATE OR REPLACE FUNCTION billing_read_HASH({parameters}user_ids INTEGER[])
RETURNS JSON LANGUAGE plpgsql STABLE {SETTINGS} AS $$
DECLARE
    has_payments BOOLEAN := cardinality(named_payment_intents || named_charges || named_refunds || named_disputes
                                        || named_invoices || named_invoice_payments) > 0;
    reached_intents TEXT[];
    reached_charges TEXT[];
    reached_records TEXT[];
{variables}BEGIN
    IF has_payments THEN
        SELECT intents, charges INTO reached_intents, reached_charges
        FROM billing_reached_payments(named_payment_intents, named_charges, named_invoices);
        reached_records := named_invoice_payments
            || ARRAY(SELECT stripe_payment_record_id FROM invoice_payments
                     WHERE stripe_invoice_id = ANY (named_invoices) AND stripe_payment_record_id IS NOT NULL);
    END IF;
{reads}    RETURN json_build_object(
        {members}
    );
END
$$;
"
    )
}

fn open_function() -> String {
    let parameters: String = Ids::KINDS
        .map(|kind| format!("named_{kind} TEXT[], "))
        .concat();
    let arguments: String = Ids::KINDS.map(|kind| format!("named_{kind}, ")).concat();
    let keys = Ids::KINDS.map(|kind| format!("named_{kind}")).join(" || ");
    format!(
        "CREATE OR REPLACE FUNCTION billing_open_HASH(events JSONB, {parameters}shared_keys TEXT[],
    shown_transactions TEXT[], named_users INTEGER[], decides_plans BOOLEAN, at TIMESTAMPTZ)
RETURNS JSON LANGUAGE plpgsql VOLATILE {SETTINGS} AS $$
DECLARE
    new_events TEXT[];
    keys TEXT[] := {keys};
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
        'state', billing_read_HASH({arguments}user_ids));
END
$$;
"
    )
}

/// A step of `close`: a member of the changes, and the statements that write it, `written`.
struct Step {
    member: &'static str,
    statements: String,
    /// Whether the last statement has to change as many rows as there are members.
    is_counted: bool,
}

fn upsert<T: Mirrored>() -> Step {
    Step {
        member: T::TABLE,
        statements: mirror::upsert::<T>("written", "at"),
        is_counted: true,
    }
}

fn step(member: &'static str, statements: &str) -> Step {
    Step {
        member,
        statements: statements.to_owned(),
        is_counted: false,
    }
}

/// Gives the rows of a table the user of the customer they name.
fn relink(table: &str) -> String {
    format!(
        "UPDATE {table} SET user_id = customers.user_id FROM customers
             WHERE customers.stripe_customer_id IN (SELECT jsonb_array_elements_text(written))
               AND customers.user_id IS NOT NULL AND {table}.stripe_customer_id = customers.stripe_customer_id
               AND {table}.user_id IS DISTINCT FROM customers.user_id"
    )
}

/// In the order of who reads whom: customers, then what names them, then payments, which read invoices and sessions; what
/// many events have in common, the rows of a day, last.
fn steps() -> Vec<Step> {
    vec![
        upsert::<Customer>(),
        upsert::<CheckoutSession>(),
        upsert::<PriceSnapshot>(),
        upsert::<CouponSnapshot>(),
        upsert::<DiscountSnapshot>(),
        // The row of a subscription that only a checkout session has named so far; its own events know better.
        step(
            "named_by_session",
            "INSERT INTO subscriptions AS stored (stripe_subscription_id, stripe_customer_id, user_id, status,
                 plan_name, created_at, started_at, updated_at)
             SELECT stripe_subscription_id, stripe_customer_id,
                 (SELECT user_id FROM customers WHERE customers.stripe_customer_id = named.stripe_customer_id),
                 'incomplete', plan_name, created_at, created_at, at
             FROM jsonb_to_recordset(written) AS named (stripe_subscription_id TEXT, stripe_customer_id TEXT,
                 plan_name TEXT, created_at TIMESTAMPTZ)
             ON CONFLICT (stripe_subscription_id) WHERE NOT superseded DO UPDATE SET
                 plan_name = excluded.plan_name, updated_at = excluded.updated_at
             WHERE stored.source_event_id = '' AND stored.status = 'incomplete'",
        ),
        upsert::<Subscription>(),
        upsert::<CreditNote>(),
        // An invoice of ours, announced before the run that handed it to Stripe has stored the link.
        step(
            "collected",
            "UPDATE invoices
             SET stripe_invoice_id = collected.stripe_invoice_id,
                 stripe_customer_id = COALESCE(collected.stripe_customer_id, invoices.stripe_customer_id)
             FROM jsonb_to_recordset(written) AS collected (id BIGINT, stripe_invoice_id TEXT, stripe_customer_id TEXT)
             WHERE invoices.id = collected.id AND invoices.kind = 'partner' AND invoices.contract_id IS NOT NULL
               AND invoices.stripe_invoice_id IS NULL AND invoices.collection_method = 'send_invoice'
               AND invoices.status = 'open'
               AND NOT EXISTS (SELECT FROM invoices AS other
                               WHERE other.stripe_invoice_id = collected.stripe_invoice_id AND NOT other.superseded)",
        ),
        upsert::<Invoice>(),
        // What the credits of a partner's void invoice had paid is theirs again.
        step(
            "void_invoices",
            "WITH voided AS (
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
             FROM taken WHERE credits.id = taken.credit_id",
        ),
        upsert::<PaymentIntent>(),
        upsert::<Charge>(),
        upsert::<Refund>(),
        upsert::<Dispute>(),
        upsert::<InvoicePayment>(),
        upsert::<BalanceTransaction>(),
        upsert::<Payout>(),
        upsert::<TaxRate>(),
        step(
            "obsolete_payments",
            "DELETE FROM payment_history WHERE payment_key IN (SELECT jsonb_array_elements_text(written))",
        ),
        upsert::<Payment>(),
        // The payments that were there before their invoice.
        step(
            "invoices_of_payments",
            "UPDATE payment_history SET invoice_id = invoices.id
             FROM invoices
             WHERE invoices.stripe_invoice_id = ANY (ARRAY(SELECT jsonb_array_elements_text(written)))
               AND NOT invoices.superseded AND payment_history.stripe_invoice_id = invoices.stripe_invoice_id
               AND payment_history.invoice_id IS DISTINCT FROM invoices.id",
        ),
        // A refund that is issued as credit. Nothing of it remains when the refund failed.
        step(
            "store_credits",
            "INSERT INTO credits (stripe_refund_id, stripe_customer_id, user_id, invoice_id, amount_cents,
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
                 remaining_cents = least(credits.remaining_cents, excluded.remaining_cents)",
        ),
        step(
            "revoked_credits",
            "DELETE FROM credits
             WHERE stripe_refund_id IN (SELECT jsonb_array_elements_text(written)) AND applied_to_invoice_id IS NULL
               AND NOT EXISTS (SELECT FROM credit_applications WHERE credit_id = credits.id)",
        ),
        // What a row shows need not be fetched, and nothing is fetched for it twice. Whoever writes a row has it locked.
        step(
            "lookups",
            "DELETE FROM stripe_lookups
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
                 wanted.requested_at, wanted.due_at, wanted.currency, wanted.figure_at, wanted.amount_cents)",
        ),
        // Who waited for a tax rate waits no more, unless for another one.
        step(
            "known_tax_rates",
            "WITH known AS (
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
             WHERE kind = 'tax_rate' AND stripe_id IN (SELECT id FROM known) AND subject <> '' AND done_at IS NULL",
        ),
        // A customer's user goes to everything that names the customer.
        Step {
            member: "relinked_customers",
            statements: ["subscriptions", "invoices", "credits", "payment_history"]
                .map(relink)
                .join(";\n             "),
            is_counted: false,
        },
        // `users.stripe_customer_id` is filled when empty. When several customers claim one user, the one that was
        // linked first stands, whatever the order of arrival; what was filled in for a customer that has gone to
        // another user is emptied; what the application itself wrote is never replaced.
        step(
            "claimed_users",
            "WITH named AS (
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
             FROM filled WHERE customers.user_id = filled.id",
        ),
        // `users.plan`, remembering what stood there before the bundle first wrote it, or what the application has
        // written since.
        step(
            "plans_set",
            "INSERT INTO user_plans AS stored (user_id, plan_before, plan_set)
             SELECT users.id, users.plan, wanted.plan
             FROM jsonb_to_recordset(written) AS wanted (user_id INTEGER, plan TEXT) JOIN users ON users.id = user_id
             ORDER BY users.id
             ON CONFLICT (user_id) DO UPDATE SET
                 plan_before = CASE WHEN excluded.plan_before IS DISTINCT FROM stored.plan_set
                                    THEN excluded.plan_before ELSE stored.plan_before END,
                 plan_set = excluded.plan_set;
             UPDATE users SET plan = wanted.plan
             FROM jsonb_to_recordset(written) AS wanted (user_id INTEGER, plan TEXT)
             WHERE users.id = wanted.user_id AND users.plan IS DISTINCT FROM wanted.plan",
        ),
        // What the bundle wrote there while less was known is taken back; a word of the application stays.
        step(
            "plans_restored",
            "WITH remembered AS (
                 DELETE FROM user_plans
                 WHERE user_id IN (SELECT CAST(jsonb_array_elements_text(written) AS INTEGER))
                 RETURNING user_id, plan_before, plan_set
             )
             UPDATE users SET plan = remembered.plan_before FROM remembered
             WHERE users.id = remembered.user_id AND users.plan = remembered.plan_set
               AND users.plan IS DISTINCT FROM remembered.plan_before",
        ),
        step(
            "outbox",
            "WITH new AS (
                 INSERT INTO outbox (detail_type, dedupe_key, detail, created_at)
                 SELECT detail_type, dedupe_key, detail, at
                 FROM jsonb_to_recordset(written) AS message (place INTEGER, detail_type TEXT, dedupe_key TEXT,
                     detail JSONB)
                 ORDER BY place
                 ON CONFLICT (dedupe_key) DO NOTHING
                 RETURNING id, detail_type, dedupe_key, detail
             )
             SELECT json_agg(new ORDER BY id) INTO messages FROM new",
        ),
        upsert::<SubscriptionVersion>(),
        // Of a fetched subscription, as long as a version of it waits for its terms.
        step(
            "fetched_objects",
            "INSERT INTO fetched_objects (source_event_id, stripe_subscription_id, payload, fetched_at)
             SELECT source_event_id, stripe_subscription_id, payload, fetched_at
             FROM jsonb_to_recordset(written) AS fetched (source_event_id TEXT, stripe_subscription_id TEXT,
                 payload JSONB, fetched_at TIMESTAMPTZ)
             WHERE EXISTS (
                 SELECT FROM subscription_versions AS version
                 WHERE version.stripe_subscription_id = fetched.stripe_subscription_id
                   AND version.source_event_id = fetched.source_event_id AND version.waits_for <> '{}')
             ON CONFLICT (source_event_id) DO NOTHING",
        ),
        step(
            "repriced",
            "DELETE FROM fetched_objects
             USING subscription_versions AS version
             WHERE fetched_objects.source_event_id IN (SELECT jsonb_array_elements_text(written))
               AND version.stripe_subscription_id = fetched_objects.stripe_subscription_id
               AND version.source_event_id = fetched_objects.source_event_id AND version.waits_for = '{}'",
        ),
        // The movements of these customers become exactly those; unchanged rows are not touched. A reactivation says when
        // and with what the customer had left: a customer leaves a currency before it comes back to it, so that is the
        // movement before.
        step(
            "mrr_movements",
            "DELETE FROM mrr_movements AS stored
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
                    excluded.churned_microcents)",
        ),
        step(
            "entries_removed",
            "DELETE FROM revenue_entries
             USING jsonb_to_recordset(written) AS removed (payment_key TEXT, kind TEXT, source_id TEXT)
             WHERE revenue_entries.payment_key = removed.payment_key AND revenue_entries.kind = removed.kind
               AND revenue_entries.source_id = removed.source_id",
        ),
        // A line whose amount or instant changes keeps its key.
        step(
            "entries",
            "INSERT INTO revenue_entries (payment_key, kind, source_id, day, currency, amount_cents, is_estimated,
                 occurred_at)
             SELECT payment_key, kind, source_id, day, currency, amount_cents, is_estimated, occurred_at
             FROM jsonb_to_recordset(written) AS added (payment_key TEXT, kind TEXT, source_id TEXT, day DATE,
                 currency TEXT, amount_cents BIGINT, is_estimated BOOLEAN, occurred_at TIMESTAMPTZ)
             ON CONFLICT (payment_key, kind, source_id) DO UPDATE SET
                 day = excluded.day, occurred_at = excluded.occurred_at, currency = excluded.currency,
                 amount_cents = excluded.amount_cents, is_estimated = excluded.is_estimated",
        ),
        // Two events of the same days never wait for each other crosswise.
        step(
            "revenue_daily",
            "INSERT INTO revenue_daily AS stored (day, currency, gross_cents, fees_cents, refunds_cents, disputes_cents,
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
                 estimated_fees = stored.estimated_fees + excluded.estimated_fees",
        ),
        // A day that a payment has moved away from is as if it had never been.
        step(
            "emptied_days",
            "DELETE FROM revenue_daily
             USING jsonb_to_recordset(written) AS moved (day DATE, currency TEXT)
             WHERE revenue_daily.day = moved.day AND revenue_daily.currency = moved.currency
               AND gross_cents = 0 AND fees_cents = 0 AND refunds_cents = 0 AND disputes_cents = 0
               AND payments = 0 AND failed_payments = 0 AND estimated_fees = 0
               AND NOT EXISTS (SELECT FROM revenue_entries
                               WHERE revenue_entries.day = moved.day AND revenue_entries.currency = moved.currency)",
        ),
        step(
            "balance_daily",
            "INSERT INTO balance_daily AS stored (day, balance_type, currency, reporting_category, amount_cents, fee_cents,
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
                 = (delta.day, delta.balance_type, delta.currency, delta.reporting_category)",
        ),
    ]
}

fn close_function() -> String {
    let steps: String = steps()
        .iter()
        .map(|step| {
            let Step {
                member, statements, ..
            } = step;
            let count = match step.is_counted {
                true => format!(
                    "        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> jsonb_array_length(written) THEN
            RAISE EXCEPTION '{member}: % rows written instead of %', changed, jsonb_array_length(written);
        END IF;\n"
                ),
                false => String::new(),
            };
            let statements = indented(statements, 8);
            format!(
                "    written := changes -> '{member}';
    IF written IS NOT NULL THEN
        {statements};
{count}    END IF;\n"
            )
        })
        .collect();
    format!(
        "CREATE OR REPLACE FUNCTION billing_close_HASH(changes JSONB, at TIMESTAMPTZ)
RETURNS JSON LANGUAGE plpgsql VOLATILE {SETTINGS} AS $$
#variable_conflict use_column
DECLARE
    written JSONB;
    changed BIGINT;
    messages JSON;
BEGIN
{steps}    RETURN messages;
END
$$;
"
    )
}

/// The lines after the first, moved to this column.
fn indented(text: &str, column: usize) -> String {
    let after_first = text.lines().skip(1).filter(|line| !line.trim().is_empty());
    let least = after_first
        .map(|line| line.len() - line.trim_start().len())
        .min();
    let least = least.unwrap_or(0);
    let mut lines = text.lines();
    let mut indented = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        indented.push('\n');
        indented.push_str(&" ".repeat(column));
        indented.push_str(line.get(least..).unwrap_or_default());
    }
    indented
}

/// The text of `migrations/functions/ledger.sql`.
#[must_use]
pub fn sql() -> String {
    let (read, open, close) = (read_function(), open_function(), close_function());
    format!(
        "-- The ledger's reads and writes. Made from the mirrored tables (`shared/store/src/ledger.rs`):
-- UPDATE_SQL=1 cargo test -p shared --test documents

{read}
{open}
{close}"
    )
}

/// The members of the changes, one for each step of `close`.
pub fn members() -> impl Iterator<Item = &'static str> {
    steps().into_iter().map(|step| step.member)
}
