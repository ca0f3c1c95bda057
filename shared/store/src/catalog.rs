//! `prices`, `coupons`, `discounts`, `plan_prices` and the plan names of `plan_limits`.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::mirror::{self, columns_of, mirrored};
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

/// The stored prices among these ids.
pub async fn prices(
    db: &impl GenericClient,
    price_ids: &[String],
) -> Result<Vec<PriceSnapshot>, Error> {
    let condition = "stripe_price_id = ANY($1)";
    let parameters = [(&price_ids as _, Type::TEXT_ARRAY)];
    let mut prices: Vec<PriceSnapshot> = mirror::select(db, "get", condition, &parameters).await?;
    for PriceSnapshot {
        price, metadata, ..
    } in &mut prices
    {
        price.plan = metadata["plan"].as_str().map(str::to_owned);
    }
    Ok(prices)
}

/// The stored coupons among these ids, and those of [`discounts`].
pub async fn coupons(
    db: &impl GenericClient,
    coupon_ids: &[String],
    discount_ids: &[String],
) -> Result<Vec<CouponSnapshot>, Error> {
    mirror::select(
        db,
        "get",
        "stripe_coupon_id = ANY($1 || ARRAY(
             SELECT stripe_coupon_id FROM discounts
             WHERE stripe_coupon_id IS NOT NULL
               AND (stripe_discount_id = ANY($2)
                    OR stripe_customer_id = ANY($2) AND stripe_subscription_id IS NULL)))",
        &[
            (&coupon_ids, Type::TEXT_ARRAY),
            (&discount_ids, Type::TEXT_ARRAY),
        ],
    )
    .await
}

/// The stored discounts among these ids, and those of these customers that are of no subscription.
pub async fn discounts(
    db: &impl GenericClient,
    discount_ids: &[String],
) -> Result<Vec<DiscountSnapshot>, Error> {
    let condition = "stripe_discount_id = ANY($1)
         OR stripe_customer_id = ANY($1) AND stripe_subscription_id IS NULL";
    mirror::select(db, "get", condition, &[(&discount_ids, Type::TEXT_ARRAY)]).await
}

/// The operator's settings about plans.
#[derive(Debug, Default, Clone)]
pub struct Plans {
    /// Pairs of price id and plan from `plan_prices`.
    pub by_price: Vec<(String, String)>,
    /// The names of the plans in `plan_limits`.
    pub names: Vec<String>,
}

/// Reads both tables; they have a handful of rows.
pub async fn plans(db: &impl GenericClient) -> Result<Plans, Error> {
    let rows = db
        .query_typed(
            "-- catalog::plans
             SELECT stripe_price_id, plan_name FROM plan_prices
             UNION ALL SELECT NULL, plan_name FROM plan_limits
             ORDER BY stripe_price_id, plan_name",
            &[],
        )
        .await?;
    let mut plans = Plans::default();
    for row in &rows {
        let price: Option<String> = row.try_get("stripe_price_id")?;
        let plan: String = row.try_get("plan_name")?;
        match price {
            Some(price) => plans.by_price.push((price, plan)),
            None => plans.names.push(plan),
        }
    }
    Ok(plans)
}
