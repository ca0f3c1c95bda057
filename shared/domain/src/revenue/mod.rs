//! Revenue: cash by day, recurring revenue and its movements, and the ratios drawn from both.

pub mod cohort;
pub mod entries;
pub mod figures;
pub mod journal;
pub mod movement;
pub mod mrr_bridge;
pub mod plan_change;
