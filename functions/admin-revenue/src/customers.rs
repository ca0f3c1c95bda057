//! `GET /admin/customers…`: the customers, newest first; one with what it has, owes and pays.

use std::sync::Arc;

use axum::extract::State;
use domain::money::{Currency, div_half_even_cents};
use domain::page::Page;
use domain::stripe_objects::invoice::InvoiceStatus;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::PlainText;
use serde::{Deserialize, Serialize};
use store::credits::{self, CreditBalance};
use store::customers::{self, CustomerDetails, Filter, ListedCustomer, User};
use store::invoices::{self, InvoiceSummary};
use store::subscriptions::{self, ListedSubscription};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;

/// 10⁻⁶ of a minor unit in one.
const MICROCENTS_PER_CENT: i128 = 1_000_000;

/// A customer with its subscriptions, open invoices, credits and MRR.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Customer {
    #[serde(flatten)]
    customer: CustomerDetails,
    /// The application's user behind it, when that is known.
    user: Option<User>,
    /// The newest 500 subscriptions, newest first.
    subscriptions: Vec<ListedSubscription>,
    /// The newest 500 open invoices, newest first.
    open_invoices: Vec<InvoiceSummary>,
    /// What remains of credits, per currency.
    credit_balances: Vec<CreditBalance>,
    mrr: Vec<Mrr>,
}

/// A customer's MRR in one currency.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CustomerMrr)]
pub(crate) struct Mrr {
    currency: Currency,
    /// The exact figure, rounded half-even.
    mrr_cents: i64,
    mrr_microcents: i64,
}

/// Which customers are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct CustomersQuery {
    /// Only customers of the application's user with this id.
    #[param(minimum = 0)]
    user_id: Option<i32>,
}

/// Lists customers, newest first; those known by their id only come last.
#[utoipa::path(get, path = "/admin/customers")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(CustomersQuery { user_id }): Query<CustomersQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ListedCustomer>>, Error> {
    let filter = Filter {
        user_id,
        created: span.span()?,
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = customers::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::new(rows.rows, rows.next.as_ref())?))
}

/// The customer of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct CustomerPath {
    /// Stripe's id of the customer (`cus_…`).
    #[param(inline)]
    stripe_customer_id: PlainText,
}

/// Answers one customer with its subscriptions, open invoices, credits and MRR.
#[utoipa::path(get, path = "/admin/customers/{stripe_customer_id}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(CustomerPath { stripe_customer_id }): Path<CustomerPath>,
    Now(now): Now,
) -> Result<Json<Customer>, Error> {
    let stripe_customer_id = stripe_customer_id.as_str();
    let client = app.database.client().await?;
    let db = &**client;
    let customer = customers::find(db, stripe_customer_id).await?;
    let customer = customer.ok_or(Error::NotFound)?;
    let user_id = customer.customer.user_id;
    let user = match user_id {
        Some(user_id) => customers::find_user(db, user_id).await?,
        None => None,
    };
    let page = Page {
        after: None,
        limit: 500,
    };
    let of_customer = subscriptions::Filter {
        stripe_customer_id: Some(stripe_customer_id),
        ..subscriptions::Filter::default()
    };
    let open = invoices::Filter {
        stripe_customer_id: Some(stripe_customer_id),
        status: Some(InvoiceStatus::Open),
        ..invoices::Filter::default()
    };
    let mrr = subscriptions::mrr_of_customer(db, stripe_customer_id).await?;
    let mrr = mrr.into_iter().map(|(currency, mrr_microcents)| {
        Ok(Mrr {
            currency,
            mrr_cents: div_half_even_cents(i128::from(mrr_microcents), MICROCENTS_PER_CENT)?,
            mrr_microcents,
        })
    });
    let customer = Customer {
        customer,
        user,
        subscriptions: subscriptions::list(db, &of_customer, &page).await?.rows,
        open_invoices: invoices::list(db, &open, &page).await?.rows,
        credit_balances: credits::balances(db, stripe_customer_id, user_id, now).await?,
        mrr: mrr.collect::<Result<_, Error>>()?,
    };
    Ok(Json(customer))
}
