//! Every kind of Stripe object that the ledger mirrors, declared once.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::payment::{Charge, Dispute, InvoicePayment, PaymentIntent, Refund};
use crate::stripe_objects::balance::{BalanceTransaction, Payout, TaxRate};
use crate::stripe_objects::catalog::{CouponSnapshot, DiscountSnapshot, PriceSnapshot};
use crate::stripe_objects::customer::{CheckoutSession, Customer};
use crate::stripe_objects::invoice::{CreditNote, Invoice};
use crate::stripe_objects::snapshot::{Snapshot, Version};
use crate::stripe_objects::subscription::Subscription;

/// Snapshots of one kind, at most one of each object, by [`Snapshot::key`].
pub type Kind<T> = BTreeMap<String, T>;

/// Adds a snapshot to those of its kind.
pub trait Keep<T> {
    /// Joins it with the snapshot of the same object that is there.
    fn keep(&mut self, snapshot: T);
}

impl<T: Snapshot> Keep<T> for Kind<T> {
    fn keep(&mut self, snapshot: T) {
        let key = snapshot.key();
        let joined = match self.remove(&key) {
            Some(known) => known.join(snapshot),
            None => snapshot,
        };
        self.insert(key, joined);
    }
}

macro_rules! objects {
    ($($(#[$of_kind:meta])* $kind:ident: $object:ty = $name:literal,)*) => {
        /// Snapshots of Stripe's objects, at most one of each: what an event says, what is stored, or what changes.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Objects {
            $($(#[$of_kind])* pub $kind: Kind<$object>,)*
        }

        /// The ids that objects name: what to lock, and where to start reading. Each kind's are sorted and distinct.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Ids {
            $(pub $kind: Vec<String>,)*
        }

        impl Objects {
            /// Adds the objects of another fetch or event.
            pub fn append(&mut self, other: Objects) {
                $(other.$kind.into_values().for_each(|object| self.$kind.keep(object));)*
            }

            /// Takes over other states of the objects.
            pub fn replace(&mut self, others: Objects) {
                $(self.$kind.extend(others.$kind);)*
            }

            /// Every id that the objects have or name.
            #[must_use]
            pub fn ids(&self) -> Ids {
                let mut ids = Ids::default();
                $(self.$kind.values().for_each(|object| object.names(&mut ids));)*
                ids.normalise();
                ids
            }

            /// Joins these with the objects that an event or a fetch brings, and returns those that changed. Where the
            /// second has a verdict, its winner is the later snapshot; otherwise the version decides.
            pub fn merge(&mut self, facts: &Objects, verdict: Option<&Verdict>) -> Objects {
                Objects {
                    $($kind: merge(&mut self.$kind, &facts.$kind, verdict, |facts| &facts.$kind),)*
                }
            }

            /// Replaces the objects whose snapshot is shown by what `facts` reads of the same snapshot, and returns those
            /// that differ.
            pub fn read_again(&mut self, facts: &Objects) -> Objects {
                Objects {
                    $($kind: read_again(&mut self.$kind, &facts.$kind),)*
                }
            }

            /// The version of an object of any kind, with Stripe's name of the kind; `None` for one that is not among these.
            #[must_use]
            pub fn version(&self, object_id: &str) -> Option<(&'static str, &Version)> {
                let found = None;
                $(let found = found.or_else(|| Some(($name, self.$kind.get(object_id)?.version())));)*
                found
            }

            /// One of these objects.
            #[must_use]
            pub fn only(&self, object_id: &str) -> Objects {
                let mut only = Objects::default();
                $(only.$kind.extend(self.$kind.get_key_value(object_id).map(|(id, one)| (id.clone(), one.clone())));)*
                only
            }

            /// The id of every object.
            pub fn keys(&self) -> impl Iterator<Item = &String> {
                std::iter::empty()$(.chain(self.$kind.keys()))*
            }
        }

        impl Ids {
            /// The names of the kinds.
            pub const KINDS: [&str; [$(stringify!($kind)),*].len()] = [$(stringify!($kind)),*];

            /// The ids of each kind, in the order of [`Ids::KINDS`].
            #[must_use]
            pub fn by_kind(&self) -> [&Vec<String>; Self::KINDS.len()] {
                [$(&self.$kind),*]
            }

            /// As [`Ids::by_kind`], to add to.
            pub fn by_kind_mut(&mut self) -> [&mut Vec<String>; Self::KINDS.len()] {
                [$(&mut self.$kind),*]
            }

            /// Adds the ids of another, without sorting them.
            pub fn append(&mut self, other: Ids) {
                $(self.$kind.extend(other.$kind);)*
            }

            /// Whether all of these ids are among the others.
            #[must_use]
            pub fn are_among(&self, others: &Ids) -> bool {
                $(self.$kind.iter().all(|id| others.$kind.contains(id)))&&*
            }

            /// Sorts the ids of each kind and keeps one of each.
            pub fn normalise(&mut self) {
                for ids in self.by_kind_mut() {
                    ids.sort_unstable();
                    ids.dedup();
                }
            }

            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.by_kind().into_iter().all(Vec::is_empty)
            }
        }
    };
}

objects! {
    customers: Customer = "customer",
    checkout_sessions: CheckoutSession = "checkout.session",
    subscriptions: Subscription = "subscription",
    invoices: Invoice = "invoice",
    credit_notes: CreditNote = "credit_note",
    payment_intents: PaymentIntent = "payment_intent",
    charges: Charge = "charge",
    refunds: Refund = "refund",
    disputes: Dispute = "dispute",
    /// By [`InvoicePayment::link_key`], since most of them have no id of Stripe's.
    invoice_payments: InvoicePayment = "invoice_payment",
    prices: PriceSnapshot = "price",
    coupons: CouponSnapshot = "coupon",
    discounts: DiscountSnapshot = "discount",
    balance_transactions: BalanceTransaction = "balance_transaction",
    payouts: Payout = "payout",
    tax_rates: TaxRate = "tax_rate",
}

/// What the archived events of one second show about one object.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub object_id: String,
    /// The second that the events were created in.
    pub created_at: Timestamp,
    /// The id of the event with the last snapshot of the second.
    pub winner: String,
    /// What that event says.
    pub objects: Objects,
    /// The ids of the other events of the second.
    pub overruled: Vec<String>,
    /// False when nothing says which of two different snapshots came last.
    pub is_decided: bool,
}

impl Verdict {
    /// Whether the snapshot of this event was judged.
    fn has_heard(&self, event_id: &str) -> bool {
        self.winner == event_id || self.overruled.iter().any(|other| other == event_id)
    }
}

fn merge<T: Snapshot>(
    stored: &mut Kind<T>,
    facts: &Kind<T>,
    verdict: Option<&Verdict>,
    of_kind: impl Fn(&Objects) -> &Kind<T>,
) -> Kind<T> {
    let mut changed = Kind::new();
    for (key, snapshot) in facts {
        let before = stored.remove(key);
        let joined = match before.clone() {
            Some(row) => {
                let judged = verdict
                    .filter(|verdict| verdict.object_id == *key)
                    .filter(|_| row.version().created_at == snapshot.version().created_at)
                    .and_then(|verdict| Some((verdict, of_kind(&verdict.objects).get(key)?)));
                match judged {
                    Some((verdict, winner)) => join_judged(row, snapshot, verdict, winner),
                    None => row.join(snapshot.clone()),
                }
            }
            None => snapshot.clone(),
        };
        if before.as_ref() != Some(&joined) {
            changed.insert(key.clone(), joined.clone());
        }
        stored.insert(key.clone(), joined);
    }
    changed
}

fn read_again<T: Snapshot>(stored: &mut Kind<T>, facts: &Kind<T>) -> Kind<T> {
    let mut changed = Kind::new();
    for (key, fact) in facts {
        if let Some(row) = stored.get_mut(key)
            && row.version() == fact.version()
        {
            let mut again = fact.clone();
            again.absorb(row);
            if again != *row {
                row.clone_from(&again);
                changed.insert(key.clone(), again);
            }
        }
    }
    changed
}

fn join_judged<T: Snapshot>(row: T, snapshot: &T, verdict: &Verdict, winner: &T) -> T {
    // A snapshot inside another object's event of that second was not judged.
    let is_judged = verdict.has_heard(&row.version().event_id);
    let mut later = if is_judged || row.version() < winner.version() {
        winner.clone()
    } else {
        row.clone()
    };
    later.absorb(winner);
    later.absorb(&row);
    later.absorb(snapshot);
    later
}
