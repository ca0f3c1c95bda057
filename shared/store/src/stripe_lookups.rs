//! `stripe_lookups`: what rows wait for, fetched by the redrive. Several rows may wait for one object; one fetch answers all
//! look-ups of a kind and id.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use utoipa::ToSchema;

use super::Error;
use super::columns::{self, columns};
use super::ledger::Subject;
use super::list::{self, Order, few};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::stripe_objects::partial::{Lookup, Reason};

/// The failures after which a look-up is called failing.
const FAILING_AFTER: i32 = 3;

/// Something to fetch that a run has leased, with all look-ups that it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    pub ids: Vec<i64>,
    pub kind: String,
    pub stripe_id: String,
    /// The greatest number of attempts that have failed.
    pub attempts: i32,
    /// The thin events that wait for it.
    pub deferred: Vec<String>,
}

/// A look-up that was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    pub id: i64,
    pub reason: Reason,
    /// What waited.
    pub subject: String,
}

/// Leases up to `limit` due objects to this run until `leased_until`, oldest request first. Nothing is fetched with a time
/// before the snapshot that left it out.
pub async fn lease(
    db: &impl GenericClient,
    limit: i64,
    leased_until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Leased>, Error> {
    let rows = db
        .query_typed(
            "-- stripe_lookups::lease
             WITH leased AS (
                 UPDATE stripe_lookups SET next_attempt_at = $2
                 WHERE id IN (
                     SELECT id FROM stripe_lookups
                     WHERE done_at IS NULL AND (next_attempt_at IS NULL OR next_attempt_at <= $3)
                       AND requested_at <= $3
                       AND COALESCE(due_at, CASE WHEN kind = 'invoice_payments' THEN requested_at + interval '1 hour'
                                                 ELSE requested_at END) <= $3
                     ORDER BY id
                     LIMIT $1
                     FOR UPDATE SKIP LOCKED)
                 RETURNING id, kind, stripe_id, attempts, reason, subject
             )
             SELECT array_agg(id) AS ids, kind, stripe_id, max(attempts) AS attempts,
                    array_remove(array_agg(CASE WHEN reason = 'event' THEN subject END), NULL) AS deferred
             FROM leased
             GROUP BY kind, stripe_id ORDER BY min(id)",
            &[
                (&limit, Type::INT8),
                (&leased_until, Type::TIMESTAMPTZ),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let leased = rows.iter().map(|row| {
        Ok(Leased {
            ids: row.try_get("ids")?,
            kind: row.try_get("kind")?,
            stripe_id: row.try_get("stripe_id")?,
            attempts: row.try_get("attempts")?,
            deferred: row.try_get("deferred")?,
        })
    });
    leased.collect()
}

/// Requests something for an event that is not in the ledger, once.
pub async fn request(
    db: &impl GenericClient,
    subject: &Subject,
    lookup: &Lookup,
) -> Result<(), Error> {
    db.execute_typed(
        "-- stripe_lookups::request
         INSERT INTO stripe_lookups (subject, subject_type, event_id, kind, stripe_id, reason, requested_at, due_at)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8
         WHERE NOT EXISTS (SELECT FROM stripe_lookups WHERE subject = $1 AND kind = $4 AND stripe_id = $5
                                                        AND reason = $6 AND done_at IS NULL)
         ON CONFLICT DO NOTHING",
        &[
            (&subject.id, Type::TEXT),
            (&subject.object_type, Type::TEXT),
            (&subject.event_id, Type::TEXT),
            (&lookup.kind, Type::TEXT),
            (&lookup.stripe_id, Type::TEXT),
            (&lookup.reason.as_str(), Type::TEXT),
            (&lookup.requested_at, Type::TIMESTAMPTZ),
            (&lookup.due_at, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// Returns leased look-ups that were not asked for.
pub async fn release(
    db: &impl GenericClient,
    ids: &[i64],
    leased_until: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- stripe_lookups::release
         UPDATE stripe_lookups SET next_attempt_at = NULL
         WHERE id = ANY($1) AND done_at IS NULL AND next_attempt_at = $2",
        &[(&ids, Type::INT8_ARRAY), (&leased_until, Type::TIMESTAMPTZ)],
    )
    .await?;
    Ok(())
}

/// Closes the look-ups that a fetch answers, in the transaction that applies the answer and before it is applied: a row
/// that shows no more by then requests them again, see [`reopen`]. Returns them; none when events have brought the answer
/// meanwhile.
pub async fn complete(
    db: &impl GenericClient,
    kind: &str,
    stripe_id: &str,
    now: Timestamp,
) -> Result<Vec<Completed>, Error> {
    let rows = db
        .query_typed(
            "-- stripe_lookups::complete
             UPDATE stripe_lookups
             SET done_at = $3, state = 'done', next_attempt_at = NULL, last_error = NULL
             WHERE kind = $1 AND stripe_id = $2 AND done_at IS NULL
             RETURNING id, reason, subject",
            &[
                (&kind, Type::TEXT),
                (&stripe_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let completed = rows.iter().map(|row| {
        let word: &str = row.try_get("reason")?;
        let reason = Reason::parse(word).ok_or_else(|| Error::Unreadable {
            table: "stripe_lookups",
            column: "reason",
            row: word.to_owned(),
        })?;
        Ok(Completed {
            id: row.try_get("id")?,
            reason,
            subject: row.try_get("subject")?,
        })
    });
    completed.collect()
}

/// Opens those of the closed look-ups again that the answer has requested anew, or whose row still has the reason though it
/// waits for nothing else; after a pause. Returns how many.
pub async fn reopen(
    db: &impl GenericClient,
    ids: &[i64],
    error: &str,
    next_attempt_at: Timestamp,
) -> Result<u64, Error> {
    let requested_anew = forget_repetitions(db, ids).await?;
    let opened = db
        .execute_typed(
            "-- stripe_lookups::reopen
             UPDATE stripe_lookups
             SET done_at = NULL, attempts = attempts + 1, last_error = $2, next_attempt_at = $3,
                 state = CASE WHEN attempts + 1 >= $4 THEN 'failing' ELSE 'open' END
             WHERE id = ANY($5) OR id = ANY($1) AND NOT EXISTS (
                 SELECT FROM stripe_lookups AS other
                 WHERE other.subject = stripe_lookups.subject AND other.reason = stripe_lookups.reason
                   AND other.done_at IS NULL AND other.subject <> ''
             ) AND reason = ANY (CASE subject_type
                 WHEN 'customer' THEN (SELECT partial FROM customers WHERE stripe_customer_id = subject)
                 WHEN 'subscription' THEN (SELECT partial FROM subscriptions
                                           WHERE stripe_subscription_id = subject AND NOT superseded)
                 WHEN 'invoice' THEN (SELECT partial FROM invoices
                                      WHERE stripe_invoice_id = subject AND NOT superseded)
                 WHEN 'credit_note' THEN (SELECT partial FROM credit_notes WHERE stripe_credit_note_id = subject)
                 WHEN 'payment_intent' THEN (SELECT partial FROM payment_intents
                                             WHERE stripe_payment_intent_id = subject)
                 WHEN 'charge' THEN (SELECT partial FROM payment_attempts WHERE stripe_charge_id = subject)
                 WHEN 'refund' THEN (SELECT partial FROM refunds WHERE stripe_refund_id = subject)
                 WHEN 'dispute' THEN (SELECT partial FROM disputes WHERE stripe_dispute_id = subject)
                 WHEN 'payout' THEN (SELECT partial FROM payouts WHERE stripe_payout_id = subject)
                 END)",
            &[
                (&ids, Type::INT8_ARRAY),
                (&error, Type::TEXT),
                (&next_attempt_at, Type::TIMESTAMPTZ),
                (&FAILING_AFTER, Type::INT4),
                (&requested_anew, Type::INT8_ARRAY),
            ],
        )
        .await?;
    Ok(opened)
}

/// Removes the unfinished look-ups that repeat one of these. Returns which are repeated.
async fn forget_repetitions(db: &impl GenericClient, ids: &[i64]) -> Result<Vec<i64>, Error> {
    let rows = db.query_typed(
        "-- stripe_lookups::forget_repetitions
         DELETE FROM stripe_lookups AS repeated
         USING stripe_lookups AS done
         WHERE done.id = ANY($1) AND repeated.kind = done.kind AND repeated.stripe_id = done.stripe_id
           AND repeated.reason = done.reason AND repeated.subject = done.subject AND repeated.done_at IS NULL
         RETURNING done.id",
        &[(&ids, Type::INT8_ARRAY)],
    )
    .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Records a failed attempt of all look-ups that the fetch would have answered. `is_absent` when Stripe has said that there
/// is no such object.
pub async fn fail(
    db: &impl GenericClient,
    kind: &str,
    stripe_id: &str,
    (error, is_absent): (&str, bool),
    next_attempt_at: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- stripe_lookups::fail
         UPDATE stripe_lookups
         SET attempts = attempts + 1, last_error = $3, next_attempt_at = $4,
             state = CASE WHEN $5 THEN 'absent' WHEN attempts + 1 >= $6 THEN 'failing' ELSE 'open' END
         WHERE kind = $1 AND stripe_id = $2 AND done_at IS NULL",
        &[
            (&kind, Type::TEXT),
            (&stripe_id, Type::TEXT),
            (&error, Type::TEXT),
            (&next_attempt_at, Type::TIMESTAMPTZ),
            (&is_absent, Type::BOOL),
            (&FAILING_AFTER, Type::INT4),
        ],
    )
    .await?;
    Ok(())
}

/// Of these objects, those that an unfinished look-up of this kind asks for.
pub async fn unfinished(
    db: &impl GenericClient,
    kind: &str,
    stripe_ids: &[&str],
) -> Result<BTreeSet<String>, Error> {
    let rows = db
        .query_typed(
            "-- stripe_lookups::unfinished
             SELECT stripe_id FROM stripe_lookups
             WHERE kind = $1 AND stripe_id = ANY($2) AND done_at IS NULL",
            &[(&kind, Type::TEXT), (&stripe_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(row.try_get("stripe_id")?))
        .collect()
}

/// The number of look-ups that are due.
pub async fn count_due(db: &impl GenericClient, now: Timestamp) -> Result<i64, Error> {
    let row = db
        .query_typed_one(
            "-- stripe_lookups::count_due
             SELECT count(*) AS due FROM stripe_lookups
             WHERE done_at IS NULL AND (next_attempt_at IS NULL OR next_attempt_at <= $1) AND requested_at <= $1
               AND COALESCE(due_at, CASE WHEN kind = 'invoice_payments' THEN requested_at + interval '1 hour'
                                         ELSE requested_at END) <= $1",
            &[(&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(row.try_get("due")?)
}

columns! {
    /// A look-up: what a row waits for. Amounts in minor units of `currency`.
    pub struct ListedLookup of "stripe_lookups" {
        pub id: i64,
        /// What is fetched: `invoice_payments`, `balance_transaction`, `price`, …
        pub kind: String,
        /// Of which object at Stripe.
        pub stripe_id: String,
        /// What the row does not show: `payments`, `fee`, `items`, …
        pub reason: String,
        /// The object whose row waits; empty when nobody has noted it.
        pub subject: String,
        /// Stripe's name of its kind.
        pub subject_type: Option<String>,
        /// The event, or the fetch, that left it out.
        pub event_id: Option<String>,
        /// `open`; `failing` after three failures; `absent` when Stripe has no such object; `done`.
        pub state: String,
        /// Failed attempts.
        pub attempts: i32,
        pub last_error: Option<String>,
        pub currency: Option<Currency>,
        /// What the figure may be wrong by; null when no figure is.
        pub amount_cents: Option<i64>,
        /// The instant that the figure counts it at.
        pub figure_at: Option<Timestamp>,
        /// When an event left it out.
        pub requested_at: Timestamp,
        /// Not before: until then an event may bring it.
        pub due_at: Option<Timestamp>,
        /// Not before, after a failure; null for as soon as it is due.
        pub next_attempt_at: Option<Timestamp>,
        pub done_at: Option<Timestamp>,
    }
}

/// The columns, where a finished one is called so whoever has finished it.
const LISTED: &str = "id, kind, stripe_id, reason, subject, subject_type, event_id,
    CASE WHEN done_at IS NULL THEN state ELSE 'done' END AS state, attempts, last_error, currency, amount_cents,
    figure_at, requested_at, due_at, next_attempt_at, done_at";

/// Which look-ups a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    /// Only of this state; without one all that are unfinished.
    pub state: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub currency: Option<&'a str>,
    /// When a figure counts the amount, otherwise when it was requested.
    pub at: Span,
}

/// A page of look-ups, newest first.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, ListedLookup>, Error> {
    if filter.state == Some("done") {
        return list_done(db, filter, page).await;
    }
    list::read(
        db,
        &format!(
            "-- stripe_lookups::list
             SELECT {LISTED}, coalesce(figure_at, requested_at) AS listed_at FROM stripe_lookups
             WHERE done_at IS NULL"
        ),
        Order {
            at: "coalesce(figure_at, requested_at)",
            key: "id",
        },
        &[
            few("state", &filter.state, Type::TEXT),
            few("reason", &filter.reason, Type::TEXT),
            few("currency", &filter.currency, Type::TEXT),
        ],
        filter.at,
        page,
    )
    .await
}

async fn list_done(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, ListedLookup>, Error> {
    list::read(
        db,
        &format!(
            "-- stripe_lookups::list_done
             SELECT {LISTED}, coalesce(figure_at, requested_at) AS listed_at FROM stripe_lookups
             WHERE done_at IS NOT NULL"
        ),
        Order {
            at: "coalesce(figure_at, requested_at)",
            key: "id",
        },
        &[
            few("reason", &filter.reason, Type::TEXT),
            few("currency", &filter.currency, Type::TEXT),
        ],
        filter.at,
        page,
    )
    .await
}

/// Makes a look-up due now and returns it. `None` when there is none, or it is done.
///
/// # Errors
/// When the statement fails.
pub async fn retry(
    db: &impl GenericClient,
    id: i64,
    now: Timestamp,
) -> Result<Option<ListedLookup>, Error> {
    columns::first(
        db,
        &format!(
            "-- stripe_lookups::retry
             UPDATE stripe_lookups
             SET next_attempt_at = NULL, due_at = least(due_at, $2)
             WHERE id = $1 AND done_at IS NULL
             RETURNING {LISTED}"
        ),
        &[(&id, Type::INT8), (&now, Type::TIMESTAMPTZ)],
    )
    .await
}

/// One look-up.
///
/// # Errors
/// When the statement fails.
pub async fn find(db: &impl GenericClient, id: i64) -> Result<Option<ListedLookup>, Error> {
    columns::first(
        db,
        &format!("-- stripe_lookups::find\nSELECT {LISTED} FROM stripe_lookups WHERE id = $1"),
        &[(&id, Type::INT8)],
    )
    .await
}

/// How many look-ups are unfinished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LookupCounts {
    /// Those that have not failed three times.
    pub open: i64,
    pub failing: i64,
    /// Those of which Stripe says that there is no such object.
    pub absent: i64,
    /// When the oldest was requested.
    pub oldest_at: Option<Timestamp>,
}

/// How many look-ups are unfinished, by state.
///
/// # Errors
/// When the statement fails.
pub async fn counts(db: &impl GenericClient) -> Result<LookupCounts, Error> {
    let row = db
        .query_typed_one(
            "-- stripe_lookups::counts
             SELECT count(*) FILTER (WHERE state NOT IN ('failing', 'absent')) AS open,
                    count(*) FILTER (WHERE state = 'failing') AS failing,
                    count(*) FILTER (WHERE state = 'absent') AS absent, min(requested_at) AS oldest_at
             FROM stripe_lookups WHERE done_at IS NULL",
            &[],
        )
        .await?;
    Ok(LookupCounts {
        open: row.try_get("open")?,
        failing: row.try_get("failing")?,
        absent: row.try_get("absent")?,
        oldest_at: row.try_get("oldest_at")?,
    })
}
