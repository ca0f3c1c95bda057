//! Partner billing: contracts, their billing cycles, prices, credits and statements of account.

pub mod account_statement;
pub mod contract;
pub mod coverage;
pub mod credit;
pub mod cycle;
pub mod draft;
pub mod pricing;
pub mod status_codes;
pub mod tax;
pub mod terms;
