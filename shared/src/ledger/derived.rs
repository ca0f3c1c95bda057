//! What the stored objects of some payments add up to, without writing anything. The reconciliation compares it with
//! the stored rows.

use futures_util::try_join;
use tokio_postgres::GenericClient;

use super::Error;
use super::decision::PaymentMirror;
use domain::payment::{self, FeeEstimate, Payment};
use domain::stripe_objects::snapshot::Snapshot;
use store::payment_facts;

/// The payments that the named objects lead to, derived from the stored objects.
pub async fn derived_payments(
    db: &impl GenericClient,
    named: &payment_facts::PaymentIds,
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
    fn by_key<T: Snapshot>(rows: Vec<T>) -> std::collections::BTreeMap<String, T> {
        rows.into_iter().map(|row| (row.key(), row)).collect()
    }
    let mirror = PaymentMirror {
        intents: by_key(intents),
        charges: by_key(charges),
        refunds: by_key(refunds),
        disputes: by_key(disputes),
        links: by_key(links),
    };
    let paid_at = paid_at.iter().map(|(id, at)| (id.as_str(), *at)).collect();
    let mut payments = Vec::new();
    for facts in mirror.payments(&paid_at) {
        payments.extend(payment::derive(&facts, estimate)?);
    }
    Ok(payments)
}
