//! `prices`, `coupons`, `discounts`, `plan_prices` and the plan names of `plan_limits`.

use super::mirror::{columns_of, mirrored};
use domain::stripe_objects::catalog::{
    Coupon, CouponSnapshot, DiscountSnapshot, Price, PriceSnapshot,
};
use domain::stripe_objects::snapshot::Version;

columns_of!(Price {
    stripe_price_id,
    stripe_product_id,
    currency,
    unit_amount_decimal,
    billing_scheme,
    tiers,
    tiers_mode,
    currency_options,
    transform_quantity,
    interval = "recurring_interval",
    interval_count,
    usage_type,
    lookup_key,
    nickname,
    !plan,
});

mirrored!(PriceSnapshot => "prices" by "(stripe_price_id)" {
    metadata or default,
    active,
    deleted_at,
    created_at,
    ..price: Price,
    ..version: Version,
});

columns_of!(Coupon {
    stripe_coupon_id,
    percent_off,
    amount_off_cents,
    currency,
    duration,
    duration_in_months,
    applies_to,
    currency_options,
});

mirrored!(CouponSnapshot => "coupons" by "(stripe_coupon_id)" {
    deleted_at,
    created_at,
    ..coupon: Coupon,
    ..version: Version,
});

mirrored!(DiscountSnapshot => "discounts" by "(stripe_discount_id)" {
    stripe_discount_id,
    stripe_coupon_id,
    stripe_customer_id,
    stripe_subscription_id,
    ended_at,
    created_at,
    ..version: Version,
});

/// The plan that a price's metadata names, which is stored there only.
pub(crate) fn name_plan(snapshot: &mut PriceSnapshot) {
    let PriceSnapshot {
        price, metadata, ..
    } = snapshot;
    price.plan = metadata["plan"].as_str().map(str::to_owned);
}

/// The operator's settings about plans.
#[derive(Debug, Default, Clone)]
pub struct Plans {
    /// Pairs of price id and plan from `plan_prices`.
    pub by_price: Vec<(String, String)>,
    /// The names of the plans in `plan_limits`.
    pub names: Vec<String>,
}
