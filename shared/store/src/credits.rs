//! `credits`: store credit that a refund was issued as.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::columns::{self, columns};
use super::list::{self, Order, sorted};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::partner::credit::{Application, Available, CreditReason};

columns! {
    /// A credit, granted to a user or to a partner. Amounts in minor units of `currency`.
    pub struct Credit of "credits" {
        pub id: i64,
        /// The user it belongs to; null for a partner's.
        pub user_id: Option<i32>,
        /// The partner it belongs to; null for a user's.
        pub api_key_prefix: Option<String>,
        pub stripe_customer_id: Option<String>,
        /// The refund at Stripe that was issued as this credit.
        pub stripe_refund_id: Option<String>,
        /// The invoice it compensates; null without one.
        pub invoice_id: Option<i64>,
        pub amount_cents: i64,
        /// What no invoice has taken yet.
        pub remaining_cents: i64,
        pub currency: Currency,
        pub reason: Option<CreditReason>,
        pub description: Option<String>,
        /// The last invoice it was applied to.
        pub applied_to_invoice_id: Option<i64>,
        /// When the remaining amount expires; null means never.
        pub expires_at: Option<Timestamp>,
        pub voided_at: Option<Timestamp>,
        /// Who granted it, as the audit log names them.
        pub created_by: Option<String>,
        pub created_at: Timestamp,
    }
}

columns! {
    /// What an invoice took from a credit.
    pub struct AppliedCredit of "credit_applications" {
        pub credit_id: i64,
        /// In minor units of `currency`.
        pub amount_cents: i64,
        pub currency: Currency,
        pub reason: Option<CreditReason>,
        pub description: Option<String>,
        pub applied_at: Timestamp,
    }
}

columns! {
    /// What remains of somebody's credits in one currency.
    pub struct CreditBalance of "credits" {
        pub currency: Currency,
        /// In minor units of `currency`.
        pub remaining_cents: i64,
    }
}

/// Which credits a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub user_id: Option<i32>,
    pub api_key_prefix: Option<&'a str>,
    /// When the credit was granted.
    pub created: Span,
}

/// A page of credits.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, Credit>, Error> {
    list::read(
        db,
        &format!(
            "-- credits::list
             SELECT {}, created_at AS listed_at FROM credits WHERE true",
            Credit::COLUMNS
        ),
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            sorted("user_id", &filter.user_id, Type::INT4),
            sorted("api_key_prefix", &filter.api_key_prefix, Type::TEXT),
        ],
        filter.created,
        page,
    )
    .await
}

/// What was taken from credits for an invoice, in the order in which it was taken.
///
/// # Errors
/// When the statement fails.
pub async fn applied_to(
    db: &impl GenericClient,
    invoice_id: i64,
) -> Result<Vec<AppliedCredit>, Error> {
    columns::all(
        db,
        &format!(
            "-- credits::applied_to
             SELECT {}
             FROM (
                 SELECT credit_applications.id, credit_id, credit_applications.amount_cents, currency, reason,
                        description, applied_at
                 FROM credit_applications JOIN credits ON credits.id = credit_id
                 WHERE credit_applications.invoice_id = $1
             ) AS applied
             ORDER BY id",
            AppliedCredit::COLUMNS
        ),
        &[(&invoice_id, Type::INT8)],
    )
    .await
}

/// What remains of the credits of a customer and of its user, per currency; expired and voided ones are nothing.
///
/// # Errors
/// When the statement fails.
pub async fn balances(
    db: &impl GenericClient,
    stripe_customer_id: &str,
    user_id: Option<i32>,
    now: Timestamp,
) -> Result<Vec<CreditBalance>, Error> {
    columns::all(
        db,
        &format!(
            "-- credits::balances
             SELECT {}
             FROM (
                 SELECT currency, CAST(sum(remaining_cents) AS BIGINT) AS remaining_cents
                 FROM credits
                 WHERE (stripe_customer_id = $1 OR user_id = $2) AND voided_at IS NULL
                   AND (expires_at IS NULL OR expires_at > $3)
                 GROUP BY currency
             ) AS balances
             WHERE remaining_cents > 0 ORDER BY currency",
            CreditBalance::COLUMNS
        ),
        &[
            (&stripe_customer_id, Type::TEXT),
            (&user_id, Type::INT4),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await
}

/// A credit about to be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCredit<'a> {
    /// Whose: a user's, or a partner's.
    pub user_id: Option<i32>,
    pub api_key_prefix: Option<&'a str>,
    pub amount_cents: i64,
    pub currency: Currency,
    pub reason: CreditReason,
    pub description: Option<&'a str>,
    pub expires_at: Option<Timestamp>,
    /// Who grants it, as the audit log names them.
    pub created_by: &'a str,
}

/// Grants a credit and returns its id; `None` when there is no such user, or no contract with such a prefix.
///
/// # Errors
/// When the statement fails.
pub async fn insert(
    db: &impl GenericClient,
    credit: &NewCredit<'_>,
    now: Timestamp,
) -> Result<Option<i64>, Error> {
    let rows = db
        .query_typed(
            "-- credits::insert
             INSERT INTO credits (user_id, api_key_prefix, amount_cents, remaining_cents, currency,
                 reason, description, expires_at, created_by, created_at)
             SELECT $1, $2, $3, $3, $4, $5, $6, $7, $8, $9
             WHERE EXISTS (SELECT FROM users WHERE id = $1)
                OR EXISTS (SELECT FROM api_partner_contracts WHERE api_key_prefix = $2)
             RETURNING id",
            &[
                (&credit.user_id, Type::INT4),
                (&credit.api_key_prefix, Type::TEXT),
                (&credit.amount_cents, Type::INT8),
                (&credit.currency.as_str(), Type::TEXT),
                (&credit.reason.as_str(), Type::TEXT),
                (&credit.description, Type::TEXT),
                (&credit.expires_at, Type::TIMESTAMPTZ),
                (&credit.created_by, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.first().map(|row| Ok(row.try_get("id")?)).transpose()
}

/// One credit, locked until the end of the transaction.
///
/// # Errors
/// When the statement fails.
pub async fn lock(db: &impl GenericClient, id: i64) -> Result<Option<Credit>, Error> {
    columns::first(
        db,
        &format!(
            "-- credits::lock
             SELECT {} FROM credits WHERE id = $1 FOR UPDATE",
            Credit::COLUMNS
        ),
        &[(&id, Type::INT8)],
    )
    .await
}

/// Takes a credit back; false when it was voided before or something of it has been used.
///
/// # Errors
/// When the statement fails.
pub async fn void(db: &impl GenericClient, id: i64, now: Timestamp) -> Result<bool, Error> {
    let changed = db
        .execute_typed(
            "-- credits::void
             UPDATE credits SET remaining_cents = 0, voided_at = $2
             WHERE id = $1 AND voided_at IS NULL AND remaining_cents = amount_cents
               AND applied_to_invoice_id IS NULL
               AND NOT EXISTS (SELECT FROM credit_applications WHERE credit_id = $1)",
            &[(&id, Type::INT8), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(changed == 1)
}

/// What remains of a partner's credits in one currency; locked in ascending order until the end of the transaction.
///
/// # Errors
/// When the statement fails.
pub async fn lock_available(
    db: &impl GenericClient,
    api_key_prefix: &str,
    currency: Currency,
) -> Result<Vec<Available>, Error> {
    let rows = db
        .query_typed(
            "-- credits::lock_available
             SELECT id, remaining_cents, expires_at
             FROM credits
             WHERE api_key_prefix = $1 AND currency = $2 AND remaining_cents > 0 AND voided_at IS NULL
             ORDER BY id FOR UPDATE",
            &[
                (&api_key_prefix, Type::TEXT),
                (&currency.as_str(), Type::TEXT),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Available {
                credit_id: row.try_get("id")?,
                remaining_cents: row.try_get("remaining_cents")?,
                expires_at: row.try_get("expires_at")?,
            })
        })
        .collect()
}

/// Takes from credits, which are locked, for an invoice.
///
/// # Errors
/// When the statement fails, also because a credit has less than is taken.
pub async fn apply(
    db: &impl GenericClient,
    invoice_id: i64,
    applications: &[Application],
    now: Timestamp,
) -> Result<(), Error> {
    if applications.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = applications.iter().map(|taken| taken.credit_id).collect();
    let amounts: Vec<i64> = applications
        .iter()
        .map(|taken| taken.amount_cents)
        .collect();
    let changed = db
        .execute_typed(
            "-- credits::apply
             WITH taken AS (
                 SELECT credit_id, amount_cents, position
                 FROM unnest($2, $3) WITH ORDINALITY AS taken (credit_id, amount_cents, position)
             ), applied AS (
                 INSERT INTO credit_applications (credit_id, invoice_id, amount_cents, applied_at)
                 SELECT credit_id, $1, amount_cents, $4 FROM taken ORDER BY position
             )
             UPDATE credits
             SET remaining_cents = credits.remaining_cents - taken.amount_cents, applied_to_invoice_id = $1
             FROM taken WHERE credits.id = taken.credit_id",
            &[
                (&invoice_id, Type::INT8),
                (&ids, Type::INT8_ARRAY),
                (&amounts, Type::INT8_ARRAY),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let expected = u64::try_from(applications.len()).unwrap_or(u64::MAX);
    Error::check_row_count("credits::apply", expected, changed)
}

/// Locks the credits that were applied to an invoice, in ascending order, so that two invoices never wait for each
/// other's crosswise.
///
/// # Errors
/// When the statement fails.
pub async fn lock_applied_to(db: &impl GenericClient, invoice_id: i64) -> Result<(), Error> {
    db.query_typed(
        "-- credits::lock_applied_to
         SELECT id FROM credits
         WHERE id IN (SELECT credit_id FROM credit_applications WHERE invoice_id = $1)
         ORDER BY id FOR UPDATE",
        &[(&invoice_id, Type::INT8)],
    )
    .await?;
    Ok(())
}

/// Gives what was taken for an invoice back to its credits, which are locked. Their applications go; the audit log has
/// them.
///
/// # Errors
/// When the statement fails.
pub async fn give_back(db: &impl GenericClient, invoice_id: i64) -> Result<(), Error> {
    db.execute_typed(
        "-- credits::give_back
         WITH taken AS (
             DELETE FROM credit_applications WHERE invoice_id = $1
             RETURNING credit_id, amount_cents
         ), returned AS (
             SELECT credit_id, CAST(sum(amount_cents) AS BIGINT) AS amount_cents
             FROM taken GROUP BY credit_id
         )
         UPDATE credits
         SET remaining_cents = credits.remaining_cents + returned.amount_cents,
             applied_to_invoice_id = (SELECT invoice_id FROM credit_applications
                                      WHERE credit_id = credits.id AND invoice_id <> $1
                                      ORDER BY id DESC LIMIT 1)
         FROM returned WHERE credits.id = returned.credit_id",
        &[(&invoice_id, Type::INT8)],
    )
    .await?;
    Ok(())
}
