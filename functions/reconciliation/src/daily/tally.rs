//! What a run counts on its way.

use std::collections::{BTreeMap, BTreeSet};

use domain::money::Currency;
use domain::reconciliation::Discrepancy;
use serde::Serialize;

/// Something that could not be checked, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct NotChecked {
    /// A list of Stripe, or a check of ours.
    pub(super) what: &'static str,
    pub(super) reason: String,
    /// Whether the invocation fails for it: it has to be tried again, or somebody has to do something about it.
    #[serde(skip)]
    pub(super) is_failure: bool,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Objects of Stripe that were compared.
    pub(super) compared: i64,
    /// Of them equal to what the ledger has.
    pub(super) matched: i64,
    /// Differences that somebody has accepted before, each once, in whichever list it was met.
    pub(super) accepted: BTreeSet<Discrepancy>,
    /// Events that had never arrived.
    pub(super) events_applied: i64,
    /// Of those, the ones the ledger could not apply.
    pub(super) events_failed: i64,
    /// Estimated fees that became actual ones.
    pub(super) fees_settled: i64,
    /// What was charged in the last 24 hours of the window, as Stripe has it.
    pub(super) charged: BTreeMap<Currency, i64>,
    /// Objects asked for one by one.
    pub(super) examined: usize,
    pub(super) not_checked: Vec<NotChecked>,
}
