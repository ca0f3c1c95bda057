//! Customers: their snapshots, and which user of the application each one is.

use jiff::Timestamp;
use serde_json::Value;

use crate::money::Currency;
use crate::stripe_objects::objects::Ids;
use crate::stripe_objects::snapshot::{Snapshot, Version, earliest, known};

/// A Stripe customer as one snapshot shows it.
/// Source: <https://docs.stripe.com/api/customers/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct Customer {
    pub stripe_customer_id: String,
    pub email: Option<String>,
    pub name: Option<String>,
    pub currency: Option<Currency>,
    pub delinquent: Option<bool>,
    pub metadata: Value,
    pub deleted_at: Option<Timestamp>,
    /// When Stripe created the customer; `None` when only other objects have named it so far.
    pub created_at: Option<Timestamp>,
    pub link: Option<UserLink>,
    pub version: Version,
}

/// The best evidence for the user behind a customer. The greater link wins: the stronger source, then the later time.
/// So links can be joined in any order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserLink {
    pub source: LinkSource,
    pub named_at: Timestamp,
    pub event_id: String,
    pub user_id: i32,
}

/// Where a user id was named, weakest first (`docs/stripe.md`, "user of a customer").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkSource {
    InvoiceMetadata,
    CustomerMetadata,
    SubscriptionMetadata,
    SessionMetadata,
    ClientReferenceId,
}

impl LinkSource {
    /// The number stored in `customers.user_link_rank`; 0 means that no event named a user.
    #[must_use]
    pub fn rank(self) -> i32 {
        match self {
            LinkSource::InvoiceMetadata => 1,
            LinkSource::CustomerMetadata => 2,
            LinkSource::SubscriptionMetadata => 3,
            LinkSource::SessionMetadata => 4,
            LinkSource::ClientReferenceId => 5,
        }
    }

    /// The source that a stored rank stands for; `None` for 0 and for an unknown rank.
    #[must_use]
    pub fn from_rank(rank: i32) -> Option<LinkSource> {
        match rank {
            1 => Some(LinkSource::InvoiceMetadata),
            2 => Some(LinkSource::CustomerMetadata),
            3 => Some(LinkSource::SubscriptionMetadata),
            4 => Some(LinkSource::SessionMetadata),
            5 => Some(LinkSource::ClientReferenceId),
            _ => None,
        }
    }
}

impl Snapshot for Customer {
    fn key(&self) -> String {
        self.stripe_customer_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.customers.push(self.stripe_customer_id.clone());
    }

    fn absorb(&mut self, earlier: &Customer) {
        earliest(&mut self.deleted_at, earlier.deleted_at);
        earliest(&mut self.created_at, earlier.created_at);
        known(&mut self.link, &earlier.link);
    }
}

impl Customer {
    /// A customer whose id is all that is known.
    #[must_use]
    pub fn named(stripe_customer_id: &str) -> Customer {
        Customer {
            stripe_customer_id: stripe_customer_id.to_owned(),
            email: None,
            name: None,
            currency: None,
            delinquent: None,
            metadata: Value::Object(serde_json::Map::new()),
            deleted_at: None,
            created_at: None,
            link: None,
            version: Version::unseen(),
        }
    }
}

/// A checkout session: the first object that says which user a customer is and which plan was bought.
/// Source: <https://docs.stripe.com/api/checkout/sessions/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckoutSession {
    pub stripe_checkout_session_id: String,
    pub stripe_customer_id: Option<String>,
    pub stripe_subscription_id: Option<String>,
    pub stripe_payment_intent_id: Option<String>,
    pub stripe_invoice_id: Option<String>,
    pub user_id: Option<i32>,
    /// The plan in the session's metadata (`metadata.plan`).
    pub plan_name: Option<String>,
    pub mode: Option<String>,
    pub status: Option<String>,
    pub payment_status: Option<String>,
    pub metadata: Value,
    pub created_at: Timestamp,
    pub version: Version,
}

impl Snapshot for CheckoutSession {
    fn key(&self) -> String {
        self.stripe_checkout_session_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.checkout_sessions
            .push(self.stripe_checkout_session_id.clone());
        ids.customers.extend(self.stripe_customer_id.clone());
        ids.subscriptions
            .extend(self.stripe_subscription_id.clone());
        ids.payment_intents
            .extend(self.stripe_payment_intent_id.clone());
    }

    fn absorb(&mut self, _earlier: &CheckoutSession) {}
}

impl CheckoutSession {
    /// The plan that the session names, once it has been paid for.
    #[must_use]
    pub fn paid_plan(&self) -> Option<&str> {
        self.plan_name.as_deref().filter(|_| self.is_paid())
    }

    /// Whether nothing more has to be paid: what a plan named by it counts from (`docs/stripe.md`).
    #[must_use]
    pub fn is_paid(&self) -> bool {
        matches!(
            self.payment_status.as_deref(),
            Some("paid" | "no_payment_required")
        )
    }
}
