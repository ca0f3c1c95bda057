//! Stripe's objects as snapshots, and which of two snapshots of one object is the later one.

pub mod catalog;
pub mod customer;
pub mod invoice;
pub mod snapshot;
pub mod subscription;
