//! `customers` and `users`: the Stripe customer, and the application's user behind it.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use utoipa::ToSchema;

use super::Error;
use super::columns::{self, FromRow, columns};
use super::list::{self, Order, few};
use super::mirror::{self, Columns, Mirrored, mirrored};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::stripe_objects::customer::{Customer, UserLink};
use domain::stripe_objects::snapshot::Version;

columns! {
    /// A customer as a list shows it.
    pub struct ListedCustomer of "customers" {
        pub stripe_customer_id: String,
        /// The application's user behind it; null until that is known.
        pub user_id: Option<i32>,
        pub email: Option<String>,
        pub name: Option<String>,
        /// The customer's default currency at Stripe; null without one.
        pub currency: Option<Currency>,
        pub delinquent: Option<bool>,
        /// When Stripe deleted the customer; null for one that exists.
        pub deleted_at: Option<Timestamp>,
        /// At Stripe; null for one that is only named so far.
        pub created_at: Option<Timestamp>,
        pub updated_at: Timestamp,
    }
}

/// A customer with its metadata at Stripe.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CustomerDetails {
    #[serde(flatten)]
    pub customer: ListedCustomer,
    /// Metadata as Stripe has it.
    pub metadata: Value,
}

impl FromRow for CustomerDetails {
    fn from_row(row: &Row) -> Result<CustomerDetails, Error> {
        Ok(CustomerDetails {
            customer: ListedCustomer::from_row(row)?,
            metadata: row.try_get("metadata")?,
        })
    }
}

columns! {
    /// A user of the application.
    pub struct User of "users" {
        pub id: i32,
        pub email: Option<String>,
        pub full_name: Option<String>,
        /// The name of the plan that the user is entitled to.
        pub plan: Option<String>,
        pub stripe_customer_id: Option<String>,
    }
}

/// A stored customer, and the user it resolves to at present.
#[derive(Debug, Clone)]
pub struct StoredCustomer {
    pub customer: Customer,
    pub user_id: Option<i32>,
}

// The user is the one that events named, else the one whose row in `users` names the customer, the smallest id if several
// do.
mirrored!(Customer => "customers" by "(stripe_customer_id)" {
    stripe_customer_id,
    email,
    name,
    currency,
    delinquent,
    deleted_at,
    metadata,
    created_at,
    ..link: Option<UserLink>,
    ..version: Version,
}
const LOOKED_UP: &'static [(&'static str, &'static str)] = &[(
    "user_id",
    "COALESCE(new.user_link_user_id,
              (SELECT min(id) FROM users WHERE users.stripe_customer_id = new.stripe_customer_id))",
)];
);

/// The customers with these ids that are there.
///
/// # Errors
/// When the statement fails.
pub async fn get(
    db: &impl GenericClient,
    stripe_customer_ids: &[String],
) -> Result<Vec<StoredCustomer>, Error> {
    let condition = "stripe_customer_id = ANY($1)";
    let rows = db
        .query_typed(
            &mirror::select_statement::<Customer>("get", &["user_id"], condition),
            &[(&stripe_customer_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    let stored = rows.iter().map(|row| {
        Ok(StoredCustomer {
            customer: Columns::read(row, Customer::TABLE)?,
            user_id: row.try_get("user_id")?,
        })
    });
    stored.collect()
}

/// Carries a customer's user to everything that names the customer.
///
/// # Errors
/// When the statement fails.
pub async fn spread_user(db: &impl GenericClient, stripe_customer_id: &str) -> Result<(), Error> {
    db.execute_typed(
        "-- customers::spread_user
         WITH customer AS (
             SELECT stripe_customer_id AS id, user_id FROM customers
             WHERE stripe_customer_id = $1 AND user_id IS NOT NULL
         ), subscription AS (
             UPDATE subscriptions SET user_id = customer.user_id FROM customer
             WHERE stripe_customer_id = customer.id
               AND subscriptions.user_id IS DISTINCT FROM customer.user_id
         ), invoice AS (
             UPDATE invoices SET user_id = customer.user_id FROM customer
             WHERE stripe_customer_id = customer.id
               AND invoices.user_id IS DISTINCT FROM customer.user_id
         ), credit AS (
             UPDATE credits SET user_id = customer.user_id FROM customer
             WHERE stripe_customer_id = customer.id
               AND credits.user_id IS DISTINCT FROM customer.user_id
         )
         UPDATE payment_history SET user_id = customer.user_id FROM customer
         WHERE stripe_customer_id = customer.id
           AND payment_history.user_id IS DISTINCT FROM customer.user_id",
        &[(&stripe_customer_id, Type::TEXT)],
    )
    .await?;
    Ok(())
}

/// The user a customer resolves to.
///
/// # Errors
/// When the statement fails.
pub async fn user_of(
    db: &impl GenericClient,
    stripe_customer_id: &str,
) -> Result<Option<i32>, Error> {
    let rows = db
        .query_typed(
            "-- customers::user_of
             SELECT user_id FROM customers WHERE stripe_customer_id = $1",
            &[(&stripe_customer_id, Type::TEXT)],
        )
        .await?;
    rows.first()
        .map_or(Ok(None), |row| Ok(row.try_get("user_id")?))
}

/// The customer that was made at Stripe for a partner's contract, the first one if there are several.
///
/// # Errors
/// When the statement fails.
pub async fn of_contract(
    db: &impl GenericClient,
    contract_id: i64,
) -> Result<Option<String>, Error> {
    let rows = db
        .query_typed(
            "-- customers::of_contract
             SELECT stripe_customer_id FROM customers
             WHERE metadata ->> 'contract_id' = $1 AND deleted_at IS NULL
             ORDER BY created_at, stripe_customer_id LIMIT 1",
            &[(&contract_id.to_string(), Type::TEXT)],
        )
        .await?;
    rows.first()
        .map(|row| Ok(row.try_get("stripe_customer_id")?))
        .transpose()
}

/// Fills `users.stripe_customer_id` when empty. When several customers claim one user, the one
/// that was linked first stands, whatever the order of arrival; what was filled in for a customer
/// that has gone to another user is emptied; what the application itself wrote is never replaced.
///
/// # Errors
/// When the statement fails.
pub async fn fill_user(db: &impl GenericClient, user_id: i32) -> Result<(), Error> {
    db.execute_typed(
        "-- customers::fill_user
         WITH claimant AS (
             SELECT stripe_customer_id FROM customers
             WHERE user_id = $1 AND user_link_rank > 0
             ORDER BY user_link_at, stripe_customer_id LIMIT 1
         ), holder AS (
             SELECT users.stripe_customer_id, customers.user_link_filled IS TRUE AS is_ours
             FROM users LEFT JOIN customers USING (stripe_customer_id)
             WHERE users.id = $1
         ), filled AS (
             UPDATE users SET stripe_customer_id = claimant.stripe_customer_id
             FROM holder LEFT JOIN claimant ON true
             WHERE users.id = $1
               AND (holder.stripe_customer_id IS NULL OR holder.is_ours)
               AND users.stripe_customer_id IS DISTINCT FROM claimant.stripe_customer_id
             RETURNING users.stripe_customer_id
         )
         UPDATE customers SET user_link_filled = (customers.stripe_customer_id = filled.stripe_customer_id)
         FROM filled WHERE customers.user_id = $1",
        &[(&user_id, Type::INT4)],
    )
    .await?;
    Ok(())
}

/// Sets `users.plan`, unless it says so already, and remembers what stood there before the bundle
/// first wrote it, or what the application has written since.
///
/// # Errors
/// When the statement fails.
pub async fn set_user_plan(db: &impl GenericClient, user_id: i32, plan: &str) -> Result<(), Error> {
    db.execute_typed(
        "-- customers::set_user_plan
         WITH remembered AS (
             INSERT INTO user_plans AS stored (user_id, plan_before, plan_set)
             SELECT id, plan, $2 FROM users WHERE id = $1
             ON CONFLICT (user_id) DO UPDATE SET
                 plan_before = CASE WHEN excluded.plan_before IS DISTINCT FROM stored.plan_set
                                    THEN excluded.plan_before ELSE stored.plan_before END,
                 plan_set = excluded.plan_set
         )
         UPDATE users SET plan = $2 WHERE id = $1 AND plan IS DISTINCT FROM $2",
        &[(&user_id, Type::INT4), (&plan, Type::TEXT)],
    )
    .await?;
    Ok(())
}

/// Takes back what the bundle wrote into `users.plan` while less was known; a word of the
/// application stays.
///
/// # Errors
/// When the statement fails.
pub async fn restore_user_plan(db: &impl GenericClient, user_id: i32) -> Result<(), Error> {
    db.execute_typed(
        "-- customers::restore_user_plan
         WITH remembered AS (
             DELETE FROM user_plans WHERE user_id = $1 RETURNING plan_before, plan_set
         )
         UPDATE users SET plan = remembered.plan_before FROM remembered
         WHERE users.id = $1 AND users.plan = remembered.plan_set
           AND users.plan IS DISTINCT FROM remembered.plan_before",
        &[(&user_id, Type::INT4)],
    )
    .await?;
    Ok(())
}

/// Which customers a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter {
    pub user_id: Option<i32>,
    /// Of `created_at`; a customer that is only named so far counts as of 1970.
    pub created: Span,
}

/// A page of customers; those that are only named so far come last.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter,
    page: &Page<String>,
) -> Result<Rows<String, ListedCustomer>, Error> {
    list::read(
        db,
        &format!(
            "-- customers::list
             SELECT {}, COALESCE(created_at, TIMESTAMPTZ '1970-01-01 00:00:00+00') AS listed_at
             FROM customers
             WHERE true",
            ListedCustomer::COLUMNS
        ),
        Order {
            at: "COALESCE(created_at, TIMESTAMPTZ '1970-01-01 00:00:00+00')",
            key: "stripe_customer_id",
        },
        &[few("user_id", &filter.user_id, Type::INT4)],
        filter.created,
        page,
    )
    .await
}

/// One customer.
///
/// # Errors
/// When the statement fails.
pub async fn find(
    db: &impl GenericClient,
    stripe_customer_id: &str,
) -> Result<Option<CustomerDetails>, Error> {
    columns::first(
        db,
        &format!(
            "-- customers::find
             SELECT {}, metadata FROM customers WHERE stripe_customer_id = $1",
            ListedCustomer::COLUMNS
        ),
        &[(&stripe_customer_id, Type::TEXT)],
    )
    .await
}

/// One user of the application.
///
/// # Errors
/// When the statement fails.
pub async fn find_user(db: &impl GenericClient, user_id: i32) -> Result<Option<User>, Error> {
    columns::first(
        db,
        &format!(
            "-- customers::find_user
             SELECT {} FROM users WHERE id = $1",
            User::COLUMNS
        ),
        &[(&user_id, Type::INT4)],
    )
    .await
}
