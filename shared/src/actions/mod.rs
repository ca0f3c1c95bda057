//! The writes, one function each: what they change, what the audit log keeps of it, and what is announced.

pub mod contracts;
pub mod credits;
pub mod drafts;
pub mod invoices;
