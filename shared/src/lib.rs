//! DeedPro Billing: the crate every function stands on.
