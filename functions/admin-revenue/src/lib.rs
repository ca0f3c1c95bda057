//! admin-revenue
