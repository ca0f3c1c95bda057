//! admin-revenue
fn main() {}
