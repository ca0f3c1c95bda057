//! Stripe's objects as snapshots, and how to find the later of two snapshots of one object.

pub mod balance;
pub mod catalog;
pub mod customer;
pub mod invoice;
pub mod objects;
pub mod partial;
pub mod snapshot;
pub mod status;
pub mod subscription;
