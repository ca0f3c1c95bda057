-- The floor: how a careful engineer would apply the `invoice.paid` of one renewal, and nothing else, by hand. The bench
-- (webhook.rs) prepares these statements once and sends them for each event; afterwards the rows have to be those that the
-- handler writes.
--
-- `:table.column` is the value in the row that the event leaves, `:2.table.column` in the second such row of the table.
-- Everything up to the next `-- flight` is sent at once.

-- flight open

BEGIN;

INSERT INTO stripe_events (event_id, type, api_version, livemode, account, object_id, created_at, payload, received_at,
    outcome, rank, state_digest, previous_digest)
VALUES (:stripe_events.event_id, :stripe_events.type, :stripe_events.api_version, :stripe_events.livemode,
    :stripe_events.account, :stripe_events.object_id, :stripe_events.created_at, :stripe_events.payload,
    :stripe_events.received_at, :stripe_events.outcome, :stripe_events.rank, :stripe_events.state_digest,
    :stripe_events.previous_digest)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id;

SELECT pg_advisory_xact_lock(hashtextextended(key, 0))
FROM (SELECT key FROM unnest(ARRAY[:payment_history.stripe_customer_id, :invoices.stripe_invoice_id,
          :invoices.stripe_subscription_id, :payment_history.stripe_payment_intent_id,
          :payment_history.stripe_charge_id]) AS key ORDER BY key) AS ordered;

SELECT event_id, rank, state_digest, previous_digest FROM stripe_events
WHERE object_id = :stripe_events.object_id AND created_at = :stripe_events.created_at AND outcome = 'applied'
  AND event_id <> :stripe_events.event_id;

SELECT user_id, user_link_user_id FROM customers WHERE stripe_customer_id = :invoices.stripe_customer_id;

SELECT stripe_invoice_id, invoice_number, stripe_customer_id, stripe_subscription_id, status, currency, subtotal_cents,
    tax_cents, discount_cents, total_cents, amount_paid_cents, amount_remaining_cents, out_of_band_cents,
    credit_notes_cents, billing_period_start, billing_period_end, due_date, paid_at, voided_at, finalized_at, deleted_at,
    attempt_count, next_payment_attempt_at, line_items, lines_complete, tax_breakdown, billing_reason, collection_method,
    invoice_pdf_url, notes, metadata, created_at, source_created_at, source_rank, source_event_id
FROM invoices WHERE stripe_invoice_id = :invoices.stripe_invoice_id AND NOT superseded;

SELECT stripe_credit_note_id, amount_cents, pre_payment_cents, status, voided_at, created_at, source_created_at,
    source_rank, source_event_id
FROM credit_notes WHERE stripe_invoice_id = :invoices.stripe_invoice_id;

SELECT stripe_invoice_id, stripe_payment_intent_id, stripe_charge_id, stripe_invoice_payment_id, stripe_customer_id,
    amount_paid_cents, currency, status, paid_at, source_created_at, source_rank, source_event_id
FROM invoice_payments
WHERE stripe_invoice_id = :invoices.stripe_invoice_id
   OR stripe_payment_intent_id = :payment_history.stripe_payment_intent_id
   OR stripe_charge_id = :payment_history.stripe_charge_id;

SELECT stripe_payment_intent_id, stripe_customer_id, amount_cents, amount_received_cents, currency, status,
    latest_charge_id, stripe_invoice_id, payment_method, failure_code, decline_code, failure_message, succeeded_at,
    canceled_at, user_id, created_at, source_created_at, source_rank, source_event_id
FROM payment_intents WHERE stripe_payment_intent_id = :payment_history.stripe_payment_intent_id;

SELECT stripe_charge_id, stripe_payment_intent_id, stripe_customer_id, stripe_invoice_id, amount_cents,
    amount_captured_cents, currency, status, captured, failure_code, decline_code, failure_message, payment_method,
    user_id, succeeded_at, refund_totals, stripe_balance_transaction_id, attempted_at, settlement_currency,
    settlement_amount_cents, settlement_fee_cents, exchange_rate, source_created_at, source_rank, source_event_id
FROM payment_attempts
WHERE stripe_charge_id = :payment_history.stripe_charge_id
   OR stripe_payment_intent_id = :payment_history.stripe_payment_intent_id;

SELECT stripe_refund_id, amount_cents, currency, status, created_at, failed_at, source_created_at, source_rank,
    source_event_id
FROM refunds
WHERE stripe_charge_id = :payment_history.stripe_charge_id
   OR stripe_payment_intent_id = :payment_history.stripe_payment_intent_id;

SELECT stripe_dispute_id, amount_cents, currency, status, balance_transactions, funds_withdrawn_at, funds_reinstated_at,
    created_at, source_created_at, source_rank, source_event_id
FROM disputes
WHERE stripe_charge_id = :payment_history.stripe_charge_id
   OR stripe_payment_intent_id = :payment_history.stripe_payment_intent_id;

SELECT payment_key, kind, source_id, occurred_at, currency, amount_cents, is_estimated
FROM revenue_entries
WHERE payment_key IN (:payment_history.stripe_payment_intent_id, :payment_history.stripe_charge_id,
    :invoices.stripe_invoice_id);

-- flight close

INSERT INTO invoices (stripe_invoice_id, invoice_number, stripe_customer_id, stripe_subscription_id, status, currency,
    subtotal_cents, tax_cents, discount_cents, total_cents, amount_paid_cents, amount_remaining_cents, amount_due_cents,
    out_of_band_cents, credit_notes_cents, billing_period_start, billing_period_end, due_date, paid_at, voided_at,
    finalized_at, deleted_at, attempt_count, next_payment_attempt_at, line_items, lines_complete, tax_breakdown,
    billing_reason, collection_method, invoice_pdf_url, notes, metadata, created_at, source_created_at, source_rank,
    source_event_id, user_id, updated_at)
VALUES (:invoices.stripe_invoice_id, :invoices.invoice_number, :invoices.stripe_customer_id,
    :invoices.stripe_subscription_id, :invoices.status, :invoices.currency, :invoices.subtotal_cents, :invoices.tax_cents,
    :invoices.discount_cents, :invoices.total_cents, :invoices.amount_paid_cents, :invoices.amount_remaining_cents,
    :invoices.amount_due_cents, :invoices.out_of_band_cents, :invoices.credit_notes_cents, :invoices.billing_period_start,
    :invoices.billing_period_end, :invoices.due_date, :invoices.paid_at, :invoices.voided_at, :invoices.finalized_at,
    :invoices.deleted_at, :invoices.attempt_count, :invoices.next_payment_attempt_at, :invoices.line_items,
    :invoices.lines_complete, :invoices.tax_breakdown, :invoices.billing_reason, :invoices.collection_method,
    :invoices.invoice_pdf_url, :invoices.notes, :invoices.metadata, :invoices.created_at, :invoices.source_created_at,
    :invoices.source_rank, :invoices.source_event_id, :invoices.user_id, :invoices.updated_at)
ON CONFLICT (stripe_invoice_id) WHERE NOT superseded DO UPDATE SET
    invoice_number = excluded.invoice_number, stripe_customer_id = excluded.stripe_customer_id,
    stripe_subscription_id = excluded.stripe_subscription_id, status = excluded.status, currency = excluded.currency,
    subtotal_cents = excluded.subtotal_cents, tax_cents = excluded.tax_cents, discount_cents = excluded.discount_cents,
    total_cents = excluded.total_cents, amount_paid_cents = excluded.amount_paid_cents,
    amount_remaining_cents = excluded.amount_remaining_cents, amount_due_cents = excluded.amount_due_cents,
    out_of_band_cents = excluded.out_of_band_cents, credit_notes_cents = excluded.credit_notes_cents,
    billing_period_start = excluded.billing_period_start, billing_period_end = excluded.billing_period_end,
    due_date = excluded.due_date, paid_at = excluded.paid_at, voided_at = excluded.voided_at,
    finalized_at = excluded.finalized_at, deleted_at = excluded.deleted_at, attempt_count = excluded.attempt_count,
    next_payment_attempt_at = excluded.next_payment_attempt_at, line_items = excluded.line_items,
    lines_complete = excluded.lines_complete, tax_breakdown = excluded.tax_breakdown,
    billing_reason = excluded.billing_reason, collection_method = excluded.collection_method,
    invoice_pdf_url = excluded.invoice_pdf_url, notes = excluded.notes, metadata = excluded.metadata,
    created_at = excluded.created_at, source_created_at = excluded.source_created_at, source_rank = excluded.source_rank,
    source_event_id = excluded.source_event_id, user_id = excluded.user_id, updated_at = excluded.updated_at;

INSERT INTO invoice_payments (link_key, stripe_invoice_id, stripe_payment_intent_id, stripe_charge_id,
    stripe_invoice_payment_id, stripe_customer_id, amount_paid_cents, currency, status, paid_at, source_created_at,
    source_rank, source_event_id, updated_at)
VALUES (:invoice_payments.link_key, :invoice_payments.stripe_invoice_id, :invoice_payments.stripe_payment_intent_id,
    :invoice_payments.stripe_charge_id, :invoice_payments.stripe_invoice_payment_id, :invoice_payments.stripe_customer_id,
    :invoice_payments.amount_paid_cents, :invoice_payments.currency, :invoice_payments.status, :invoice_payments.paid_at,
    :invoice_payments.source_created_at, :invoice_payments.source_rank, :invoice_payments.source_event_id,
    :invoice_payments.updated_at)
ON CONFLICT (link_key) DO UPDATE SET
    stripe_invoice_id = excluded.stripe_invoice_id, stripe_payment_intent_id = excluded.stripe_payment_intent_id,
    stripe_charge_id = excluded.stripe_charge_id, stripe_invoice_payment_id = excluded.stripe_invoice_payment_id,
    stripe_customer_id = excluded.stripe_customer_id, amount_paid_cents = excluded.amount_paid_cents,
    currency = excluded.currency, status = excluded.status, paid_at = excluded.paid_at,
    source_created_at = excluded.source_created_at, source_rank = excluded.source_rank,
    source_event_id = excluded.source_event_id, updated_at = excluded.updated_at;

INSERT INTO payment_history (payment_key, user_id, stripe_customer_id, stripe_payment_intent_id, stripe_charge_id,
    invoice_id, stripe_invoice_id, amount_cents, currency, status, stripe_fee_cents, net_amount_cents, fee_source,
    refund_amount_cents, disputed_amount_cents, succeeded_at, created_at, updated_at)
VALUES (:payment_history.payment_key, :payment_history.user_id, :payment_history.stripe_customer_id,
    :payment_history.stripe_payment_intent_id, :payment_history.stripe_charge_id,
    (SELECT id FROM invoices WHERE stripe_invoice_id = :invoices.stripe_invoice_id AND NOT superseded),
    :payment_history.stripe_invoice_id, :payment_history.amount_cents, :payment_history.currency,
    :payment_history.status, :payment_history.stripe_fee_cents, :payment_history.net_amount_cents,
    :payment_history.fee_source, :payment_history.refund_amount_cents, :payment_history.disputed_amount_cents,
    :payment_history.succeeded_at, :payment_history.created_at, :payment_history.updated_at)
ON CONFLICT (payment_key) WHERE NOT superseded DO UPDATE SET
    user_id = excluded.user_id, stripe_customer_id = excluded.stripe_customer_id,
    stripe_payment_intent_id = excluded.stripe_payment_intent_id, stripe_charge_id = excluded.stripe_charge_id,
    invoice_id = excluded.invoice_id, stripe_invoice_id = excluded.stripe_invoice_id,
    amount_cents = excluded.amount_cents, currency = excluded.currency, status = excluded.status,
    stripe_fee_cents = excluded.stripe_fee_cents, net_amount_cents = excluded.net_amount_cents,
    fee_source = excluded.fee_source, refund_amount_cents = excluded.refund_amount_cents,
    disputed_amount_cents = excluded.disputed_amount_cents, succeeded_at = excluded.succeeded_at,
    created_at = excluded.created_at, updated_at = excluded.updated_at;

INSERT INTO outbox (detail_type, dedupe_key, detail, created_at)
VALUES (:outbox.detail_type, :outbox.dedupe_key, :outbox.detail, :outbox.created_at),
    (:2.outbox.detail_type, :2.outbox.dedupe_key, :2.outbox.detail, :2.outbox.created_at)
ON CONFLICT (dedupe_key) DO NOTHING
RETURNING id;

INSERT INTO revenue_entries (payment_key, kind, source_id, day, currency, amount_cents, is_estimated, occurred_at)
VALUES (:revenue_entries.payment_key, :revenue_entries.kind, :revenue_entries.source_id, :revenue_entries.day,
        :revenue_entries.currency, :revenue_entries.amount_cents, :revenue_entries.is_estimated,
        :revenue_entries.occurred_at),
    (:2.revenue_entries.payment_key, :2.revenue_entries.kind, :2.revenue_entries.source_id, :2.revenue_entries.day,
        :2.revenue_entries.currency, :2.revenue_entries.amount_cents, :2.revenue_entries.is_estimated,
        :2.revenue_entries.occurred_at)
ON CONFLICT (payment_key, kind, source_id) DO UPDATE SET
    day = excluded.day, occurred_at = excluded.occurred_at, currency = excluded.currency,
    amount_cents = excluded.amount_cents, is_estimated = excluded.is_estimated;

INSERT INTO revenue_daily AS stored (day, currency, gross_cents, fees_cents, refunds_cents, disputes_cents, payments,
    failed_payments, estimated_fees)
VALUES (:revenue_entries.day, :revenue_entries.currency, :revenue_entries.amount_cents, :2.revenue_entries.amount_cents,
    0, 0, 1, 0, 1)
ON CONFLICT (day, currency) DO UPDATE SET
    gross_cents = stored.gross_cents + excluded.gross_cents, fees_cents = stored.fees_cents + excluded.fees_cents,
    payments = stored.payments + excluded.payments, estimated_fees = stored.estimated_fees + excluded.estimated_fees;

COMMIT;

-- flight published

UPDATE outbox SET published_at = :outbox.published_at, attempts = attempts + 1
WHERE dedupe_key IN (:outbox.dedupe_key, :2.outbox.dedupe_key) AND published_at IS NULL;

-- The writes alone, by somebody who knows what is there.
-- flight bare

BEGIN;

INSERT INTO stripe_events (event_id, type, api_version, livemode, account, object_id, created_at, payload, received_at,
    outcome, rank, state_digest, previous_digest)
VALUES (:stripe_events.event_id, :stripe_events.type, :stripe_events.api_version, :stripe_events.livemode,
    :stripe_events.account, :stripe_events.object_id, :stripe_events.created_at, :stripe_events.payload,
    :stripe_events.received_at, :stripe_events.outcome, :stripe_events.rank, :stripe_events.state_digest,
    :stripe_events.previous_digest);

UPDATE invoices SET status = :invoices.status, amount_paid_cents = :invoices.amount_paid_cents,
    amount_remaining_cents = :invoices.amount_remaining_cents, amount_due_cents = :invoices.amount_due_cents,
    paid_at = :invoices.paid_at, attempt_count = :invoices.attempt_count, line_items = :invoices.line_items,
    metadata = :invoices.metadata, invoice_pdf_url = :invoices.invoice_pdf_url, due_date = :invoices.due_date,
    finalized_at = :invoices.finalized_at, next_payment_attempt_at = :invoices.next_payment_attempt_at,
    source_created_at = :invoices.source_created_at, source_rank = :invoices.source_rank,
    source_event_id = :invoices.source_event_id, updated_at = :invoices.updated_at
WHERE stripe_invoice_id = :invoices.stripe_invoice_id AND NOT superseded;

UPDATE invoice_payments SET stripe_charge_id = :invoice_payments.stripe_charge_id, status = :invoice_payments.status,
    amount_paid_cents = :invoice_payments.amount_paid_cents, paid_at = :invoice_payments.paid_at,
    source_created_at = :invoice_payments.source_created_at, source_rank = :invoice_payments.source_rank,
    source_event_id = :invoice_payments.source_event_id, updated_at = :invoice_payments.updated_at
WHERE link_key = :invoice_payments.link_key;

INSERT INTO payment_history (payment_key, user_id, stripe_customer_id, stripe_payment_intent_id, stripe_charge_id,
    invoice_id, stripe_invoice_id, amount_cents, currency, status, stripe_fee_cents, net_amount_cents, fee_source,
    refund_amount_cents, disputed_amount_cents, succeeded_at, created_at, updated_at)
VALUES (:payment_history.payment_key, :payment_history.user_id, :payment_history.stripe_customer_id,
    :payment_history.stripe_payment_intent_id, :payment_history.stripe_charge_id,
    (SELECT id FROM invoices WHERE stripe_invoice_id = :invoices.stripe_invoice_id AND NOT superseded),
    :payment_history.stripe_invoice_id, :payment_history.amount_cents, :payment_history.currency,
    :payment_history.status, :payment_history.stripe_fee_cents, :payment_history.net_amount_cents,
    :payment_history.fee_source, :payment_history.refund_amount_cents, :payment_history.disputed_amount_cents,
    :payment_history.succeeded_at, :payment_history.created_at, :payment_history.updated_at);

INSERT INTO outbox (detail_type, dedupe_key, detail, created_at)
VALUES (:outbox.detail_type, :outbox.dedupe_key, :outbox.detail, :outbox.created_at),
    (:2.outbox.detail_type, :2.outbox.dedupe_key, :2.outbox.detail, :2.outbox.created_at);

INSERT INTO revenue_entries (payment_key, kind, source_id, day, currency, amount_cents, is_estimated, occurred_at)
VALUES (:revenue_entries.payment_key, :revenue_entries.kind, :revenue_entries.source_id, :revenue_entries.day,
        :revenue_entries.currency, :revenue_entries.amount_cents, :revenue_entries.is_estimated,
        :revenue_entries.occurred_at),
    (:2.revenue_entries.payment_key, :2.revenue_entries.kind, :2.revenue_entries.source_id, :2.revenue_entries.day,
        :2.revenue_entries.currency, :2.revenue_entries.amount_cents, :2.revenue_entries.is_estimated,
        :2.revenue_entries.occurred_at);

INSERT INTO revenue_daily AS stored (day, currency, gross_cents, fees_cents, refunds_cents, disputes_cents, payments,
    failed_payments, estimated_fees)
VALUES (:revenue_entries.day, :revenue_entries.currency, :revenue_entries.amount_cents, :2.revenue_entries.amount_cents,
    0, 0, 1, 0, 1)
ON CONFLICT (day, currency) DO UPDATE SET
    gross_cents = stored.gross_cents + excluded.gross_cents, fees_cents = stored.fees_cents + excluded.fees_cents,
    payments = stored.payments + excluded.payments, estimated_fees = stored.estimated_fees + excluded.estimated_fees;

COMMIT;
