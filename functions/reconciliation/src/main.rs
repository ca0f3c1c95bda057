//! reconciliation
fn main() {}
