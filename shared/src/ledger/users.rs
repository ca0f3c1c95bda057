//! Which user of the application a customer is, and which plan that gives the user.

use std::collections::BTreeSet;

use super::decision::LedgerChanges;
use domain::stripe_objects::customer::CheckoutSession;
use domain::stripe_objects::objects::Objects;
use domain::stripe_objects::subscription::{Entitlement, is_entitled, user_plan};
use store::ledger::{Entitling, State};

/// What changes in the application's users.
#[derive(Debug, Default)]
pub(super) struct UserChanges {
    /// Customers whose user changes; what names the customer gets the user.
    pub(super) relinked_customers: Vec<String>,
    /// Users that may name another customer now.
    pub(super) claimed: BTreeSet<i32>,
    /// Users with the plan they are entitled to.
    pub(super) plans_set: Vec<(i32, String)>,
    /// Users whose plan is not ours to say.
    pub(super) plans_restored: Vec<i32>,
}

/// Decides users and plans of the affected customers. `all` is everything stored and learned.
pub(super) fn decide(all: &Objects, stored: &State, changes: &LedgerChanges) -> UserChanges {
    let view = View {
        all,
        stored,
        changes,
    };
    let mut decided = UserChanges::default();
    for customer in &changes.affected_customers {
        let user = view.user_of(customer);
        if user.is_some() && user != view.user_before(customer) {
            decided.relinked_customers.push(customer.clone());
        }
        decided.claimed.extend(user);
        decided.claimed.extend(changes.former_users.get(customer));
    }
    for user in &decided.claimed {
        match user_plan(&view.entitlements(*user, &decided.relinked_customers)) {
            Some(plan) => decided.plans_set.push((*user, plan)),
            None => decided.plans_restored.push(*user),
        }
    }
    decided
}

struct View<'a> {
    all: &'a Objects,
    stored: &'a State,
    changes: &'a LedgerChanges,
}

impl View<'_> {
    fn user_before(&self, customer: &str) -> Option<i32> {
        let users = &self.stored.users_of_customers;
        users.get(customer).copied().flatten()
    }

    /// The user of a customer once the changes are written: the one that events named, else the one whose row names the
    /// customer, the smallest id if several do.
    fn user_of(&self, customer: &str) -> Option<i32> {
        let Some(written) = self.changes.objects.customers.get(customer) else {
            return self.user_before(customer);
        };
        let linked = written.link.as_ref().map(|link| link.user_id);
        let mut naming = self.stored.users.iter();
        linked.or_else(|| {
            naming
                .find(|(_, named)| named.as_deref() == Some(customer))
                .map(|(user, _)| *user)
        })
    }

    /// Every subscription of the user's customers once the changes are written. One that only a paid checkout session
    /// has named so far entitles too.
    fn entitlements(&self, user: i32, relinked: &[String]) -> Vec<Entitlement> {
        let LedgerChanges {
            computed,
            objects,
            named_by_session,
            ..
        } = self.changes;
        let mut entitlements = Vec::new();
        for row in &self.stored.entitling {
            let id = &row.stripe_subscription_id;
            let customer = row.stripe_customer_id.as_ref();
            let customer = customer.filter(|customer| relinked.contains(customer));
            let owner = customer.map_or(row.user_id, |customer| self.user_of(customer));
            if owner == Some(user) && !computed.contains_key(id) {
                entitlements.push(self.entitlement(row));
            }
        }
        for (id, computed) in computed {
            let Some(subscription) = objects.subscriptions.get(id) else {
                continue;
            };
            if self.user_of(&subscription.stripe_customer_id) == Some(user) {
                entitlements.push(Entitlement {
                    stripe_subscription_id: id.clone(),
                    is_entitled: is_entitled(&subscription.status),
                    plan_name: computed.plan_name.clone(),
                    started_at: subscription.started_at,
                });
            }
        }
        for (id, session) in named_by_session {
            let is_stored = |row: &&Entitling| row.stripe_subscription_id == *id;
            let customer = session.stripe_customer_id.as_deref();
            let owner = customer.and_then(|customer| self.user_of(customer));
            if owner == Some(user) && !self.stored.entitling.iter().any(|row| is_stored(&row)) {
                entitlements.push(Entitlement {
                    stripe_subscription_id: id.clone(),
                    is_entitled: self.is_bought(id),
                    plan_name: session.paid_plan().map(str::to_owned),
                    started_at: Some(session.created_at),
                });
            }
        }
        entitlements
    }

    fn entitlement(&self, row: &Entitling) -> Entitlement {
        let id = &row.stripe_subscription_id;
        let mut plan_name = Some(row.plan_name.clone()).filter(|plan| plan != "unknown");
        let mut named = self.changes.named_by_session.iter();
        if row.is_named_only
            && row.status == "incomplete"
            && let Some((_, session)) = named.find(|(named, _)| named == id)
        {
            plan_name = session.paid_plan().map(str::to_owned);
        }
        let is_bought = row.is_bought || (row.is_named_only && self.is_bought(id));
        Entitlement {
            stripe_subscription_id: id.clone(),
            is_entitled: is_entitled(&row.status) || is_bought,
            plan_name,
            started_at: row.started_at,
        }
    }

    fn is_bought(&self, subscription_id: &str) -> bool {
        let sessions = self.all.checkout_sessions.values();
        let mut of_it = sessions
            .filter(|session| session.stripe_subscription_id.as_deref() == Some(subscription_id));
        of_it.any(CheckoutSession::is_paid)
    }
}
