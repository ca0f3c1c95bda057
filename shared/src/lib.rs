//! What several functions do alike: what Stripe says goes to the ledger, messages to the bus, invoices to the bucket,
//! writes to the audit log.

pub mod actions;
pub mod invoice_archive;
pub mod ledger;
pub mod publishing;
pub mod write;
