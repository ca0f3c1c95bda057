//! What the stored objects of some payments add up to, without writing anything. The reconciliation compares it with
//! the stored rows.

use futures_util::try_join;
use tokio_postgres::GenericClient;

use super::Error;
use super::payments;
use super::state::by_key;
use domain::payment::{self, FeeEstimate, Payment};
use domain::stripe_objects::objects::{Ids, Objects};
use store::payment_facts;

/// The payments that the named objects lead to, derived from the stored objects.
pub async fn derived_payments(
    db: &impl GenericClient,
    named: &Ids,
    estimate: FeeEstimate,
) -> Result<Vec<Payment>, Error> {
    let (intents, charges, refunds, disputes, links, paid_at) = try_join!(
        payment_facts::intents(db, named),
        payment_facts::charges(db, named),
        payment_facts::refunds(db, named),
        payment_facts::disputes(db, named),
        payment_facts::invoice_payments(db, named),
        payment_facts::invoices_paid_at(db, named),
    )?;
    let objects = Objects {
        payment_intents: by_key(intents),
        charges: by_key(charges),
        refunds: by_key(refunds),
        disputes: by_key(disputes),
        invoice_payments: by_key(links),
        ..Objects::default()
    };
    let paid_at = paid_at.iter().map(|(id, at)| (id.as_str(), *at)).collect();
    let mut derived = Vec::new();
    for facts in payments::facts(&objects, &paid_at) {
        derived.extend(payment::derive(&facts, estimate)?);
    }
    Ok(derived)
}
