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
use super::mirror::mirrored;
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
