//! What several functions do alike: what Stripe says goes to the ledger, messages to the bus, invoices to the bucket,
//! writes to the audit log; and the figures that finance and the owner ask for.

pub mod actions;
pub mod csv_rows;
pub mod figures;
pub mod invoice_archive;
pub mod ledger;
pub mod partner_billing;
pub mod publishing;
pub mod unbilled_usage;
pub mod write;
