//! What `GET /admin/reports/{report}` reads, one statement per report: one currency, each row by its own date.

use std::pin::pin;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::Error;
use super::columns::{self, FromRow, columns};
use super::mirror;
use super::row::file_columns;
use super::subscriptions;
use domain::money::Currency;
use domain::period::Period;
use domain::revenue::movement::SubscriptionVersion;
use domain::revenue::plan_change::{PlanChange, plan_changes};

/// Which rows a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The currency of every figure; rows of others are left out.
    pub currency: Currency,
    /// `[start, end)`, compared with each row's date.
    pub range: Period,
    /// What happened later is not known yet.
    pub as_of: Timestamp,
}

impl Scope {
    /// The rows of a statement, whose `$1` is the currency, `$2` and `$3` the range; `others` follow.
    async fn read<T: FromRow>(
        &self,
        db: &Client,
        statement: &str,
        others: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<T>, Error> {
        let currency = self.currency.as_str();
        let scope: &[(&(dyn ToSql + Sync), Type)] = &[
            (&currency, Type::TEXT),
            (&self.range.start, Type::TIMESTAMPTZ),
            (&self.range.end, Type::TIMESTAMPTZ),
        ];
        columns::all(db, statement, &[scope, others].concat()).await
    }
}

columns! {
    /// One customer's money of a period, in minor units.
    pub struct CustomerRevenue of "revenue_entries" {
        pub stripe_customer_id: String,
        pub name: Option<String>,
        pub gross_cents: i64,
        pub fees_cents: i64,
        pub refunds_cents: i64,
        pub disputes_cents: i64,
        pub net_cents: i64,
        /// The customer's MRR at `as_of`, in 10⁻⁶ of a minor unit.
        pub mrr_microcents: i64,
    }
}

/// The `limit` customers with the highest net revenue, highest first.
pub async fn top_customers(
    db: &Client,
    scope: &Scope,
    limit: i64,
) -> Result<Vec<CustomerRevenue>, Error> {
    let statement = "-- reports::top_customers
         WITH sums AS (
             SELECT coalesce(stripe_customer_id, 'user:' || user_id, 'unknown') AS customer,
                    sum(amount_cents) FILTER (WHERE kind = 'gross') AS gross_cents,
                    sum(amount_cents) FILTER (
                        WHERE kind IN ('fee', 'dispute_fee', 'dispute_fee_reinstated')) AS fees_cents,
                    sum(amount_cents) FILTER (WHERE kind = 'refund') AS refunds_cents,
                    sum(amount_cents) FILTER (WHERE kind IN ('dispute', 'dispute_reinstated'))
                        AS disputes_cents
             FROM dated_revenue_entries
             WHERE currency = $1 AND occurred_at >= $2 AND occurred_at < $3 AND kind <> 'failed'
             GROUP BY 1
         )
         SELECT sums.customer AS stripe_customer_id, customers.name,
                coalesce(sums.gross_cents, 0)::bigint AS gross_cents,
                coalesce(sums.fees_cents, 0)::bigint AS fees_cents,
                coalesce(sums.refunds_cents, 0)::bigint AS refunds_cents,
                coalesce(sums.disputes_cents, 0)::bigint AS disputes_cents,
                (coalesce(sums.gross_cents, 0) - coalesce(sums.fees_cents, 0)
                    - coalesce(sums.refunds_cents, 0) - coalesce(sums.disputes_cents, 0))::bigint
                    AS net_cents,
                coalesce((SELECT after_microcents FROM mrr_movements
                          WHERE mrr_movements.stripe_customer_id = sums.customer
                            AND mrr_movements.currency = $1 AND mrr_movements.occurred_at <= $4
                          ORDER BY mrr_movements.occurred_at DESC LIMIT 1), 0) AS mrr_microcents
         FROM sums LEFT JOIN customers ON customers.stripe_customer_id = sums.customer
         ORDER BY net_cents DESC, sums.customer LIMIT $5";
    scope
        .read(
            db,
            statement,
            &[(&scope.as_of, Type::TIMESTAMPTZ), (&limit, Type::INT8)],
        )
        .await
}

columns! {
    /// Failed attempts of one failure and decline code.
    pub struct Failures of "payment_attempts" {
        pub failure_code: Option<String>,
        pub decline_code: Option<String>,
        /// Every failed attempt with the code.
        pub attempts: i64,
        /// Payments whose last failed attempt of the period has it; the retries of an invoice are one payment.
        pub payments: i64,
        /// The amounts of those payments, each counted once, in minor units.
        pub amount_cents: i64,
        /// Those that were paid after all.
        pub recovered: i64,
        /// What the recovered payments brought, in minor units.
        pub recovered_cents: i64,
    }
}

/// Failed attempts by failure and decline code, most frequent first.
pub async fn failed_payments(db: &Client, scope: &Scope) -> Result<Vec<Failures>, Error> {
    let statement = "-- reports::failed_payments
         WITH failed AS (
             SELECT attempt.stripe_charge_id, attempt.failure_code, attempt.decline_code,
                    attempt.amount_cents, attempt.attempted_at,
                    coalesce(payment_history.stripe_invoice_id, attempt.stripe_invoice_id,
                             attempt.stripe_payment_intent_id, attempt.stripe_charge_id) AS debt
             FROM payment_attempts AS attempt
             LEFT JOIN payment_history ON payment_history.payment_key
                 = coalesce(attempt.stripe_payment_intent_id, attempt.stripe_charge_id)
             WHERE attempt.status = 'failed' AND attempt.currency = $1
               AND attempt.attempted_at >= $2 AND attempt.attempted_at < $3
         ), last AS (
             SELECT DISTINCT ON (debt) debt, failure_code, decline_code, amount_cents, attempted_at
             FROM failed ORDER BY debt, attempted_at DESC, stripe_charge_id DESC
         ), outcomes AS (
             SELECT last.failure_code, last.decline_code, last.amount_cents,
                    EXISTS (SELECT FROM payment_history AS paid
                            WHERE (paid.payment_key = last.debt OR paid.stripe_invoice_id = last.debt)
                              AND paid.succeeded_at >= last.attempted_at
                              AND paid.succeeded_at <= $4) AS is_recovered
             FROM last
         ), rows AS (
             SELECT failure_code, decline_code, 1 AS attempts, 0 AS payments, 0::bigint AS amount_cents,
                    0 AS recovered, 0::bigint AS recovered_cents
             FROM failed
             UNION ALL
             SELECT failure_code, decline_code, 0, 1, amount_cents, is_recovered::int,
                    CASE WHEN is_recovered THEN amount_cents ELSE 0 END
             FROM outcomes
         )
         SELECT failure_code, decline_code, sum(attempts)::bigint AS attempts,
                sum(payments)::bigint AS payments, sum(amount_cents)::bigint AS amount_cents,
                sum(recovered)::bigint AS recovered, sum(recovered_cents)::bigint AS recovered_cents
         FROM rows GROUP BY failure_code, decline_code
         ORDER BY attempts DESC, failure_code, decline_code";
    scope
        .read(db, statement, &[(&scope.as_of, Type::TIMESTAMPTZ)])
        .await
}

/// What was captured in the period.
pub async fn gross_cents(db: &Client, scope: &Scope) -> Result<i64, Error> {
    let row = db
        .query_typed_one(
            "-- reports::gross_cents
             SELECT coalesce(sum(amount_cents), 0)::bigint AS gross_cents FROM dated_revenue_entries
             WHERE currency = $1 AND occurred_at >= $2 AND occurred_at < $3 AND kind = 'gross'",
            &[
                (&scope.currency.as_str(), Type::TEXT),
                (&scope.range.start, Type::TIMESTAMPTZ),
                (&scope.range.end, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(row.try_get("gross_cents")?)
}

columns! {
    /// Refunds of one reason.
    pub struct Refunds of "revenue_entries" {
        /// Stripe's word; `unknown` where it has none.
        pub reason: String,
        pub refunds: i64,
        pub amount_cents: i64,
    }
}

/// Refunds by reason, by the refund's own date, largest first. One that failed, however late, is in none.
pub async fn refunds(db: &Client, scope: &Scope) -> Result<Vec<Refunds>, Error> {
    let statement = "-- reports::refunds
         SELECT coalesce(refund_reason, 'unknown') AS reason, count(*) AS refunds, sum(amount_cents)::bigint AS amount_cents
         FROM dated_revenue_entries
         WHERE currency = $1 AND occurred_at >= $2 AND occurred_at < $3 AND kind = 'refund'
         GROUP BY refund_reason ORDER BY amount_cents DESC, refund_reason";
    scope.read(db, statement, &[]).await
}

file_columns! {
    /// Disputes of one status and reason.
    pub struct Disputes of "disputes" {
        /// Stripe's word, as of the report.
        pub status: String,
        /// Reason of the dispute as Stripe words it; null when Stripe gives none.
        pub reason: Option<String>,
        pub disputes: i64,
        /// What was disputed, in minor units.
        pub amount_cents: i64,
        pub won: i64,
        pub lost: i64,
        /// What Stripe charged for them.
        pub fee_cents: i64,
    }
}

/// Disputes by status and reason, by the date the money was withdrawn, or the dispute opened where none was. One that
/// was decided after the report's instant is under review in it.
pub async fn disputes(db: &Client, scope: &Scope) -> Result<Vec<Disputes>, Error> {
    let statement = "-- reports::disputes
         WITH opened AS (
             SELECT CASE WHEN closed_at > $4 AND status LIKE 'warning%' THEN 'warning_under_review'
                         WHEN closed_at > $4 THEN 'under_review'
                         ELSE status END AS status,
                    reason, amount_cents,
                    coalesce((SELECT sum(entry.amount_cents) FROM balance_transactions AS moved
                              JOIN revenue_entries AS entry
                                  ON entry.payment_key = moved.payment_key AND entry.kind = 'dispute_fee'
                                     AND entry.source_id = moved.stripe_balance_transaction_id
                              WHERE moved.source_id = disputes.stripe_dispute_id), fee_cents) AS fee_cents
             FROM disputes
             WHERE currency = $1 AND coalesce(funds_withdrawn_at, created_at) >= $2
               AND coalesce(funds_withdrawn_at, created_at) < $3
         )
         SELECT status, reason, count(*) AS disputes, sum(amount_cents)::bigint AS amount_cents,
                count(*) FILTER (WHERE status = 'won') AS won,
                count(*) FILTER (WHERE status = 'lost') AS lost,
                sum(fee_cents)::bigint AS fee_cents
         FROM opened GROUP BY status, reason ORDER BY amount_cents DESC, status, reason";
    scope
        .read(db, statement, &[(&scope.as_of, Type::TIMESTAMPTZ)])
        .await
}

columns! {
    /// Fees of one source.
    pub struct Fees of "revenue_entries" {
        /// `actual` or `estimated` for fees of payments, `dispute` for fees of disputes.
        pub fee_source: String,
        /// How many payments, or disputes, were charged a fee.
        pub charged: i64,
        /// Of the payments; null for disputes.
        pub gross_cents: Option<i64>,
        pub fees_cents: i64,
    }
}

/// Fees by what is known of them: a charge's by the payment's date, others by that of their balance transaction.
pub async fn fees(db: &Client, scope: &Scope) -> Result<Vec<Fees>, Error> {
    let statement = "-- reports::fees
         SELECT CASE WHEN kind <> 'fee' THEN 'dispute'
                     WHEN is_estimated THEN 'estimated' ELSE 'actual' END AS fee_source,
                count(DISTINCT CASE WHEN kind = 'fee' THEN payment_key ELSE source_id END) AS charged,
                -- Once for each payment: it may have further fees.
                (sum(payment_amount_cents) FILTER (WHERE kind = 'fee' AND source_id = payment_key))::bigint
                    AS gross_cents,
                sum(amount_cents)::bigint AS fees_cents
         FROM dated_revenue_entries
         WHERE currency = $1 AND occurred_at >= $2 AND occurred_at < $3 AND kind IN ('fee', 'dispute_fee', 'dispute_fee_reinstated')
         GROUP BY 1 ORDER BY 1";
    scope.read(db, statement, &[]).await
}

file_columns! {
    /// Tax of one jurisdiction and rate.
    pub struct Tax of "invoices" {
        /// `unknown` where the breakdown does not say.
        pub jurisdiction: String,
        /// Stripe's id of the rate, or the rate itself; `unknown` where the breakdown does not say.
        pub tax_rate: String,
        pub invoices: i64,
        /// What the tax is of, less what credit notes gave back; null unless every document of the row says.
        pub taxable_cents: Option<i64>,
        /// Less the tax of credit notes.
        pub tax_cents: i64,
    }
}

/// Tax of the invoices issued in the period that are neither draft nor void, less that of the credit notes of the period
/// (and plus that of those voided in it), by the jurisdiction and rate of their breakdown; what the breakdown does not
/// assign has the jurisdiction and rate `unknown`.
pub async fn tax(db: &Client, scope: &Scope) -> Result<Vec<Tax>, Error> {
    let statement = "-- reports::tax
         WITH issued AS (
             SELECT 'invoice ' || id AS id, 1 AS sign, coalesce(tax_cents, 0) AS tax_cents, tax_breakdown
             FROM invoices
             WHERE currency = $1 AND coalesce(finalized_at, created_at) >= $2
               AND coalesce(finalized_at, created_at) < $3 AND NOT superseded
               AND deleted_at IS NULL AND status <> 'draft'
               AND (status <> 'void' OR voided_at > $4)
             UNION ALL
             SELECT CASE WHEN document.sign < 0 THEN 'note ' ELSE 'void ' END || note.stripe_credit_note_id,
                    document.sign, note.tax_cents, note.tax_breakdown
             FROM credit_notes AS note
             CROSS JOIN LATERAL (VALUES (-1, note.created_at), (1, note.voided_at)) AS document (sign, at)
             LEFT JOIN invoices AS invoice
                 ON invoice.stripe_invoice_id = note.stripe_invoice_id AND NOT invoice.superseded
             WHERE note.currency = $1
               AND (note.created_at >= $2 AND note.created_at < $3
                    OR note.voided_at >= $2 AND note.voided_at < $3)
               AND document.at >= $2 AND document.at < $3 AND document.at <= $4
               -- The tax of a void invoice counts nowhere, and nothing is given back of it.
               AND invoice.deleted_at IS NULL AND (invoice.status = 'void' AND invoice.voided_at <= $4) IS NOT TRUE
         ), parts AS (
             SELECT issued.id, issued.sign,
                    coalesce(part ->> 'jurisdiction', part #>> '{tax_rate,jurisdiction}',
                             part #>> '{tax_rate_details,jurisdiction}',
                             part #>> '{tax_rate,country}') AS jurisdiction,
                    coalesce(part #>> '{tax_rate_details,tax_rate}', part #>> '{tax_rate,id}',
                             CASE WHEN jsonb_typeof(part -> 'tax_rate') <> 'object'
                                  THEN part ->> 'tax_rate' END,
                             part ->> 'percentage', part ->> 'tax_rate_bps') AS tax_rate,
                    issued.sign * coalesce(part ->> 'taxable_amount', part ->> 'taxable_cents')::bigint
                        AS taxable_cents,
                    issued.sign * coalesce(part ->> 'amount', part ->> 'tax_cents', part ->> 'amount_cents',
                                           '0')::bigint AS tax_cents
             FROM issued CROSS JOIN LATERAL jsonb_array_elements(
                 CASE WHEN jsonb_typeof(tax_breakdown) = 'array' THEN tax_breakdown ELSE '[]' END) AS part
         ), named AS (
             -- What a tax does not say itself, its rate says.
             SELECT parts.id, coalesce(parts.jurisdiction, rate.jurisdiction, rate.country) AS jurisdiction,
                    parts.tax_rate, parts.taxable_cents, parts.tax_cents
             FROM parts LEFT JOIN tax_rates AS rate ON rate.stripe_tax_rate_id = parts.tax_rate
         ), told AS (
             SELECT id, sum(tax_cents) AS tax_cents FROM parts GROUP BY id
         ), rows AS (
             SELECT id, jurisdiction, tax_rate, taxable_cents, tax_cents FROM named
             UNION ALL
             SELECT issued.id, NULL, NULL, NULL, issued.sign * issued.tax_cents - coalesce(told.tax_cents, 0)
             FROM issued LEFT JOIN told ON told.id = issued.id
             WHERE issued.sign * issued.tax_cents <> coalesce(told.tax_cents, 0)
         )
         SELECT coalesce(rows.jurisdiction, 'unknown') AS jurisdiction,
                coalesce(rows.tax_rate, 'unknown') AS tax_rate,
                count(DISTINCT id) FILTER (WHERE id LIKE 'invoice %') AS invoices,
                CASE WHEN bool_and(taxable_cents IS NOT NULL) THEN sum(taxable_cents)::bigint END AS taxable_cents,
                sum(tax_cents)::bigint AS tax_cents
         FROM rows GROUP BY rows.jurisdiction, rows.tax_rate
         ORDER BY tax_cents DESC, rows.jurisdiction, rows.tax_rate";
    scope
        .read(db, statement, &[(&scope.as_of, Type::TIMESTAMPTZ)])
        .await
}

file_columns! {
    /// One partner's invoices of a period. What is invoiced is paid, credited, due or uncollectible.
    pub struct PartnerRevenue of "invoices" {
        pub api_key_prefix: String,
        pub company: Option<String>,
        pub invoices: i64,
        pub total_cents: i64,
        pub amount_paid_cents: i64,
        pub credit_applied_cents: i64,
        pub amount_due_cents: i64,
        pub uncollectible_cents: i64,
    }
}

/// Partners by what they were invoiced in the period, highest first. An invoice paid after the report's instant is due.
pub async fn partners(db: &Client, scope: &Scope) -> Result<Vec<PartnerRevenue>, Error> {
    let statement = "-- reports::partners
         WITH issued AS (
             SELECT coalesce(api_key_prefix, 'unknown') AS api_key_prefix, status,
                    coalesce(total_cents, 0) AS total_cents, credit_applied_cents,
                    coalesce(amount_paid_cents, 0) AS amount_paid_cents,
                    coalesce(amount_due_cents, 0) AS amount_due_cents,
                    (status = 'paid' AND paid_at > $4) OR status = 'void' AS is_due_whole
             FROM invoices
             WHERE kind = 'partner' AND currency = $1 AND coalesce(finalized_at, created_at) >= $2
               AND coalesce(finalized_at, created_at) < $3 AND NOT superseded
               AND status <> 'draft' AND (status <> 'void' OR voided_at > $4)
         )
         SELECT issued.api_key_prefix, contract.company, count(*) AS invoices,
                sum(issued.total_cents)::bigint AS total_cents,
                sum(CASE WHEN issued.is_due_whole THEN 0 ELSE issued.amount_paid_cents END)::bigint
                    AS amount_paid_cents,
                sum(issued.credit_applied_cents)::bigint AS credit_applied_cents,
                sum(CASE WHEN issued.is_due_whole
                         THEN issued.total_cents - issued.credit_applied_cents
                         WHEN issued.status = 'uncollectible' THEN 0
                         ELSE issued.amount_due_cents END)::bigint AS amount_due_cents,
                coalesce(sum(issued.amount_due_cents)
                    FILTER (WHERE issued.status = 'uncollectible'), 0)::bigint AS uncollectible_cents
         FROM issued
         LEFT JOIN api_partner_contracts AS contract
             ON contract.api_key_prefix = issued.api_key_prefix
         GROUP BY issued.api_key_prefix, contract.company
         ORDER BY total_cents DESC, issued.api_key_prefix";
    scope
        .read(db, statement, &[(&scope.as_of, Type::TIMESTAMPTZ)])
        .await
}

/// The plan changes of the period, by subscription. Reads the whole history of the subscriptions that changed in it,
/// one at a time.
pub async fn plan_changes_of(db: &Client, scope: &Scope) -> Result<Vec<PlanChange>, Error> {
    let code = scope.currency.as_str();
    let rows = db
        .query_typed_raw(
            &format!(
                "-- reports::plan_changes_of
                 SELECT to_json(version) AS version FROM (
                     SELECT {}
                     FROM subscription_versions
                     WHERE stripe_subscription_id IN (
                         SELECT stripe_subscription_id FROM subscription_versions
                         WHERE occurred_at >= $1 AND occurred_at < $2 AND currency = $3)
                 ) AS version
                 ORDER BY version.stripe_subscription_id",
                subscriptions::VERSION_COLUMNS
            ),
            [
                (&scope.range.start as &(dyn ToSql + Sync), Type::TIMESTAMPTZ),
                (&scope.range.end, Type::TIMESTAMPTZ),
                (&code, Type::TEXT),
            ],
        )
        .await?;
    let mut rows = pin!(rows);
    let mut changes = Vec::new();
    let mut versions: Vec<SubscriptionVersion> = Vec::new();
    let mut add = |versions: &[SubscriptionVersion]| {
        let of_subscription = plan_changes(scope.currency, versions);
        let in_range = |change: &PlanChange| scope.range.contains(change.occurred_at);
        changes.extend(of_subscription.into_iter().filter(in_range));
    };
    while let Some(row) = rows.try_next().await? {
        let version = mirror::one::<SubscriptionVersion>(row.try_get("version")?)?;
        let is_other = versions
            .first()
            .is_some_and(|first| first.stripe_subscription_id != version.stripe_subscription_id);
        if is_other {
            add(&versions);
            versions.clear();
        }
        versions.push(version);
    }
    add(&versions);
    Ok(changes)
}

columns! {
    /// Open invoices of one age.
    pub struct Aged of "invoices" {
        /// Whole civil days (UTC) past the due date; 0 is not past due.
        pub days_past_due: i64,
        pub invoices: i64,
        pub amount_due_cents: i64,
    }
}

/// Invoices of which something was due at an instant, by days past due: what was to be paid before credit notes, less
/// the credit notes in force and the payments dated up to then. What is void or uncollectible is due no more from then on.
pub async fn aging(db: &Client, currency: Currency, as_of: Timestamp) -> Result<Vec<Aged>, Error> {
    columns::all(
        db,
        "-- reports::aging
         WITH candidates AS (
             SELECT id, stripe_invoice_id, contract_id IS NOT NULL OR stripe_invoice_id IS NULL AS is_ours, status,
                    due_date, finalized_at, created_at, source_created_at, total_cents, credit_applied_cents,
                    due_before_credit_notes_cents, amount_remaining_cents, amount_paid_cents, credit_notes_cents,
                    out_of_band_cents
             FROM invoices
             WHERE (status = 'open' OR paid_at > $2 OR voided_at > $2 OR uncollectible_at > $2) AND status <> 'draft'
               AND (voided_at > $2) IS NOT FALSE AND (uncollectible_at > $2) IS NOT FALSE
               AND (status = 'open' OR (paid_at > $2) IS NOT FALSE)
               AND currency = $1 AND coalesce(finalized_at, created_at) <= $2 AND NOT superseded
               -- A draft that was deleted is void since then, and was never open.
               AND deleted_at IS NULL
         ), open AS (
             SELECT ($2 AT TIME ZONE 'UTC')::date
                        - (coalesce(due_date, finalized_at, created_at) AT TIME ZONE 'UTC')::date
                        AS days_past_due,
                    CASE WHEN is_ours OR out_of_band_cents > 0 AND due_before_credit_notes_cents IS NULL
                         THEN coalesce(total_cents, 0) - credit_applied_cents
                         ELSE coalesce(due_before_credit_notes_cents,
                                       amount_remaining_cents + amount_paid_cents + credit_notes_cents,
                                       total_cents, 0)
                    END - notes.in_force_cents
                        -- What the snapshot has taken off for notes that nobody has told.
                        - CASE WHEN source_created_at <= $2
                               THEN greatest(credit_notes_cents - notes.of_snapshot_cents, 0) ELSE 0 END
                        - payments.until_cents
                        -- What has been paid of an open invoice by a payment that nobody has told.
                        - CASE WHEN status = 'open' AND (is_ours OR source_created_at <= $2)
                               THEN greatest(coalesce(amount_paid_cents, 0) - payments.told_cents, 0) ELSE 0 END
                        AS amount_due_cents
             FROM candidates
             CROSS JOIN LATERAL (
                 SELECT coalesce(sum(note.pre_payment_cents)
                            FILTER (WHERE note.created_at <= $2 AND (note.voided_at > $2) IS NOT FALSE), 0)
                            AS in_force_cents,
                        coalesce(sum(note.pre_payment_cents)
                            FILTER (WHERE note.created_at <= candidates.source_created_at
                                      AND (note.voided_at > candidates.source_created_at) IS NOT FALSE), 0)
                            AS of_snapshot_cents
                 FROM credit_notes AS note WHERE note.stripe_invoice_id = candidates.stripe_invoice_id
             ) AS notes
             CROSS JOIN LATERAL (
                 SELECT coalesce(sum(paid.amount_cents) FILTER (WHERE paid.at <= $2), 0) AS until_cents,
                        coalesce(sum(paid.amount_cents), 0) AS told_cents
                 FROM (
                     SELECT link.amount_paid_cents AS amount_cents, link.paid_at AS at
                     FROM invoice_payments AS link
                     WHERE link.stripe_invoice_id = candidates.stripe_invoice_id AND link.status = 'paid'
                       AND NOT candidates.is_ours
                     UNION ALL
                     SELECT payment.amount_cents, payment.succeeded_at FROM payment_history AS payment
                     WHERE payment.invoice_id = candidates.id AND payment.succeeded_at IS NOT NULL
                       AND NOT payment.superseded AND candidates.is_ours
                 ) AS paid
             ) AS payments
         )
         SELECT greatest(days_past_due, 0)::bigint AS days_past_due, count(*) AS invoices,
                sum(amount_due_cents)::bigint AS amount_due_cents
         FROM open WHERE amount_due_cents > 0 GROUP BY 1 ORDER BY 1",
        &[
            (&currency.as_str(), Type::TEXT),
            (&as_of, Type::TIMESTAMPTZ),
        ],
    )
    .await
}
