//! What the stored objects of some payments add up to, without writing anything. The reconciliation compares it with
//! the stored rows.

use super::Error;
use super::payments;
use domain::payment::{self, FeeEstimate, Payment};
use store::ledger::State;

/// The payments that the stored objects lead to.
pub fn derived_payments(state: &State, estimate: FeeEstimate) -> Result<Vec<Payment>, Error> {
    let paid_at = state.invoices_paid_at.iter();
    let paid_at = paid_at.map(|(id, at)| (id.as_str(), *at)).collect();
    let mut objects = state.objects.clone();
    payments::assign_transactions(&mut objects);
    let mut derived = Vec::new();
    for facts in payments::facts(&objects, &paid_at) {
        derived.extend(payment::derive(&facts, estimate)?);
    }
    Ok(derived)
}
