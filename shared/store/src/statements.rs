//! What changed a partner's balance: its invoices, and the payments, credits and voids that reduced it.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::{Error, columns};
use domain::money::Money;
use domain::partner::account_statement::AccountEntry;

/// Everything a partner was billed and everything that settled it, oldest first. The entries of an invoice add up to
/// what is due of it now: what its payments, credits and credit notes leave is the void, or a payment nobody entered
/// (the predecessor's).
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn entries(
    db: &impl GenericClient,
    api_key_prefix: &str,
) -> Result<Vec<AccountEntry>, Error> {
    let rows = db
        .query_typed(
            "-- statements::entries
             WITH billed AS (
                 SELECT id, invoice_number, stripe_invoice_id, currency, status,
                        COALESCE(total_cents, 0) AS total_cents, COALESCE(amount_due_cents, 0) AS due_cents,
                        COALESCE(finalized_at, created_at) AS issued_at, paid_at, voided_at
                 FROM invoices
                 WHERE api_key_prefix = $1 AND kind = 'partner' AND status <> 'draft' AND NOT superseded
                   AND deleted_at IS NULL
             ), settled AS (
                 SELECT billed.id, payment_history.succeeded_at AS at, 'payment' AS kind,
                        COALESCE(payment_history.reference, payment_history.payment_key) AS reference,
                        payment_history.amount_cents
                 FROM billed JOIN payment_history ON payment_history.invoice_id = billed.id
                 WHERE payment_history.succeeded_at IS NOT NULL AND NOT payment_history.superseded
                   AND payment_history.currency = billed.currency
                 UNION ALL
                 SELECT billed.id, credit_applications.applied_at, 'credit',
                        COALESCE(credits.description, credits.reason), credit_applications.amount_cents
                 FROM billed JOIN credit_applications ON credit_applications.invoice_id = billed.id
                 JOIN credits ON credits.id = credit_applications.credit_id
                 UNION ALL
                 SELECT billed.id, credit_notes.created_at, 'credit_note',
                        credit_notes.stripe_credit_note_id, credit_notes.pre_payment_cents
                 FROM billed JOIN credit_notes USING (stripe_invoice_id)
                 WHERE credit_notes.status <> 'void' AND credit_notes.pre_payment_cents <> 0
             ), rest AS (
                 SELECT id, total_cents - due_cents
                            - COALESCE((SELECT sum(amount_cents) FROM settled WHERE settled.id = billed.id), 0)
                            AS amount_cents
                 FROM billed
             ), entries AS (
                 SELECT id, issued_at AS at, 1 AS place, 'invoice' AS kind, NULL AS reference,
                        total_cents AS amount_cents
                 FROM billed
                 UNION ALL
                 SELECT id, at, 2, kind, reference, -amount_cents FROM settled
                 UNION ALL
                 SELECT id, COALESCE(CASE WHEN status = 'void' THEN voided_at END, paid_at, issued_at), 3,
                        CASE WHEN status = 'void' THEN 'void' WHEN rest.amount_cents > 0 THEN 'payment'
                             ELSE 'adjustment' END,
                        NULL, -rest.amount_cents
                 FROM billed JOIN rest USING (id) WHERE rest.amount_cents <> 0
             )
             SELECT entries.at, entries.kind, billed.invoice_number, entries.reference,
                    CAST(entries.amount_cents AS BIGINT) AS amount_cents, billed.currency
             FROM entries JOIN billed USING (id)
             ORDER BY entries.at, billed.id, entries.place, entries.reference",
            &[(&api_key_prefix, Type::TEXT)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let invoice_number: String = row.try_get("invoice_number")?;
            let currency = columns::currency(row, "invoices", &invoice_number)?;
            Ok(AccountEntry {
                at: row.try_get("at")?,
                kind: row.try_get("kind")?,
                invoice_number,
                reference: row.try_get("reference")?,
                amount: Money::new(row.try_get("amount_cents")?, currency),
            })
        })
        .collect()
}
