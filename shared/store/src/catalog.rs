//! `prices`, `coupons`, `discounts`, `plan_prices` and the plan names of `plan_limits`.

use jiff::Timestamp;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};

use super::{Error, columns};
use domain::stripe_objects::catalog::{
    Coupon, CouponSnapshot, DiscountSnapshot, Price, PriceSnapshot,
};

/// The stored prices among these ids.
pub async fn prices(
    db: &impl GenericClient,
    price_ids: &[String],
) -> Result<Vec<PriceSnapshot>, Error> {
    let rows = db
        .query_typed(
            "-- catalog::prices
             SELECT stripe_price_id, stripe_product_id, currency, unit_amount_decimal,
                    billing_scheme, tiers, tiers_mode, currency_options, transform_quantity,
                    recurring_interval, interval_count, usage_type, lookup_key, nickname, metadata,
                    active, deleted_at, created_at, source_created_at, source_rank, source_event_id
             FROM prices WHERE stripe_price_id = ANY($1)",
            &[(&price_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(price_from_row).collect()
}

/// The stored coupons among these ids.
pub async fn coupons(
    db: &impl GenericClient,
    coupon_ids: &[String],
    discount_ids: &[String],
) -> Result<Vec<CouponSnapshot>, Error> {
    let rows = db
        .query_typed(
            "-- catalog::coupons
             SELECT stripe_coupon_id, percent_off, amount_off_cents, currency, duration,
                    duration_in_months, deleted_at, created_at, source_created_at, source_rank,
                    source_event_id
             FROM coupons
             WHERE stripe_coupon_id = ANY($1 || ARRAY(
                 SELECT stripe_coupon_id FROM discounts
                 WHERE stripe_discount_id = ANY($2) AND stripe_coupon_id IS NOT NULL))",
            &[
                (&coupon_ids, Type::TEXT_ARRAY),
                (&discount_ids, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(coupon_from_row).collect()
}

/// The stored discounts among these ids.
pub async fn discounts(
    db: &impl GenericClient,
    discount_ids: &[String],
) -> Result<Vec<DiscountSnapshot>, Error> {
    let rows = db
        .query_typed(
            "-- catalog::discounts
             SELECT stripe_discount_id, stripe_coupon_id, stripe_customer_id,
                    stripe_subscription_id, ended_at, created_at, source_created_at, source_rank,
                    source_event_id
             FROM discounts WHERE stripe_discount_id = ANY($1)",
            &[(&discount_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(discount_from_row).collect()
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

/// Inserts or replaces the row.
pub async fn upsert_price(
    db: &impl GenericClient,
    snapshot: &PriceSnapshot,
    now: Timestamp,
) -> Result<(), Error> {
    let price = &snapshot.price;
    let interval_count = price
        .interval_count
        .and_then(|count| i32::try_from(count).ok());
    let changed = db
        .execute_typed(
            "-- catalog::upsert_price
             INSERT INTO prices (stripe_price_id, stripe_product_id, currency, unit_amount_decimal,
                 billing_scheme, tiers, tiers_mode, transform_quantity, recurring_interval,
                 interval_count, usage_type, lookup_key, nickname, metadata, active, deleted_at,
                 created_at, source_created_at, source_rank, source_event_id, updated_at,
                 currency_options)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21, $22)
             ON CONFLICT (stripe_price_id) DO UPDATE SET
                 stripe_product_id = excluded.stripe_product_id, currency = excluded.currency,
                 unit_amount_decimal = excluded.unit_amount_decimal,
                 billing_scheme = excluded.billing_scheme, tiers = excluded.tiers,
                 tiers_mode = excluded.tiers_mode,
                 currency_options = excluded.currency_options,
                 transform_quantity = excluded.transform_quantity,
                 recurring_interval = excluded.recurring_interval,
                 interval_count = excluded.interval_count, usage_type = excluded.usage_type,
                 lookup_key = excluded.lookup_key, nickname = excluded.nickname,
                 metadata = excluded.metadata, active = excluded.active,
                 deleted_at = excluded.deleted_at, created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&price.stripe_price_id, Type::TEXT),
                (&price.stripe_product_id, Type::TEXT),
                (&price.currency.as_ref().map(|c| c.as_str()), Type::TEXT),
                (&price.unit_amount_decimal, Type::TEXT),
                (&price.billing_scheme, Type::TEXT),
                (&price.tiers.as_ref().map(Json), Type::JSONB),
                (&price.tiers_mode, Type::TEXT),
                (&price.transform_quantity.as_ref().map(Json), Type::JSONB),
                (&price.interval, Type::TEXT),
                (&interval_count, Type::INT4),
                (&price.usage_type, Type::TEXT),
                (&price.lookup_key, Type::TEXT),
                (&price.nickname, Type::TEXT),
                (&snapshot.metadata, Type::JSONB),
                (&snapshot.active, Type::BOOL),
                (&snapshot.deleted_at, Type::TIMESTAMPTZ),
                (&snapshot.created_at, Type::TIMESTAMPTZ),
                (&snapshot.version.created_at, Type::TIMESTAMPTZ),
                (&snapshot.version.rank, Type::INT4),
                (&snapshot.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
                (&price.currency_options.as_ref().map(Json), Type::JSONB),
            ],
        )
        .await?;
    Error::check_row_count("catalog::upsert_price", 1, changed)
}

/// Inserts or replaces the row.
pub async fn upsert_coupon(
    db: &impl GenericClient,
    snapshot: &CouponSnapshot,
    now: Timestamp,
) -> Result<(), Error> {
    let coupon = &snapshot.coupon;
    let changed = db
        .execute_typed(
            "-- catalog::upsert_coupon
             INSERT INTO coupons (stripe_coupon_id, percent_off, amount_off_cents, currency,
                 duration, duration_in_months, deleted_at, created_at, source_created_at,
                 source_rank, source_event_id, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (stripe_coupon_id) DO UPDATE SET
                 percent_off = excluded.percent_off, amount_off_cents = excluded.amount_off_cents,
                 currency = excluded.currency, duration = excluded.duration,
                 duration_in_months = excluded.duration_in_months,
                 deleted_at = excluded.deleted_at, created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&coupon.stripe_coupon_id, Type::TEXT),
                (&coupon.percent_off, Type::TEXT),
                (&coupon.amount_off_cents, Type::INT8),
                (&coupon.currency.as_ref().map(|c| c.as_str()), Type::TEXT),
                (&coupon.duration, Type::TEXT),
                (&coupon.duration_in_months, Type::INT4),
                (&snapshot.deleted_at, Type::TIMESTAMPTZ),
                (&snapshot.created_at, Type::TIMESTAMPTZ),
                (&snapshot.version.created_at, Type::TIMESTAMPTZ),
                (&snapshot.version.rank, Type::INT4),
                (&snapshot.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("catalog::upsert_coupon", 1, changed)
}

/// Inserts or replaces the row.
pub async fn upsert_discount(
    db: &impl GenericClient,
    discount: &DiscountSnapshot,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- catalog::upsert_discount
             INSERT INTO discounts (stripe_discount_id, stripe_coupon_id, stripe_customer_id,
                 stripe_subscription_id, ended_at, created_at, source_created_at, source_rank,
                 source_event_id, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (stripe_discount_id) DO UPDATE SET
                 stripe_coupon_id = excluded.stripe_coupon_id,
                 stripe_customer_id = excluded.stripe_customer_id,
                 stripe_subscription_id = excluded.stripe_subscription_id,
                 ended_at = excluded.ended_at, created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&discount.stripe_discount_id, Type::TEXT),
                (&discount.stripe_coupon_id, Type::TEXT),
                (&discount.stripe_customer_id, Type::TEXT),
                (&discount.stripe_subscription_id, Type::TEXT),
                (&discount.ended_at, Type::TIMESTAMPTZ),
                (&discount.created_at, Type::TIMESTAMPTZ),
                (&discount.version.created_at, Type::TIMESTAMPTZ),
                (&discount.version.rank, Type::INT4),
                (&discount.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("catalog::upsert_discount", 1, changed)
}

fn price_from_row(row: &Row) -> Result<PriceSnapshot, Error> {
    const TABLE: &str = "prices";
    let key: String = row.try_get("stripe_price_id")?;
    let metadata: Option<serde_json::Value> = row.try_get("metadata")?;
    let metadata = metadata.unwrap_or_default();
    let interval_count: Option<i32> = row.try_get("interval_count")?;
    Ok(PriceSnapshot {
        price: Price {
            stripe_product_id: row.try_get("stripe_product_id")?,
            currency: columns::optional_currency(row, TABLE, "currency", &key)?,
            unit_amount_decimal: row.try_get("unit_amount_decimal")?,
            billing_scheme: row.try_get("billing_scheme")?,
            tiers: columns::optional_json(row, TABLE, "tiers", &key)?,
            tiers_mode: row.try_get("tiers_mode")?,
            currency_options: columns::optional_json(row, TABLE, "currency_options", &key)?,
            transform_quantity: columns::optional_json(row, TABLE, "transform_quantity", &key)?,
            interval: row.try_get("recurring_interval")?,
            interval_count: interval_count.map(i64::from),
            usage_type: row.try_get("usage_type")?,
            lookup_key: row.try_get("lookup_key")?,
            nickname: row.try_get("nickname")?,
            plan: metadata
                .get("plan")
                .and_then(|plan| plan.as_str())
                .map(str::to_owned),
            stripe_price_id: key,
        },
        metadata,
        active: row.try_get("active")?,
        deleted_at: row.try_get("deleted_at")?,
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
    })
}

fn coupon_from_row(row: &Row) -> Result<CouponSnapshot, Error> {
    let key: String = row.try_get("stripe_coupon_id")?;
    Ok(CouponSnapshot {
        coupon: Coupon {
            percent_off: row.try_get("percent_off")?,
            amount_off_cents: row.try_get("amount_off_cents")?,
            currency: columns::optional_currency(row, "coupons", "currency", &key)?,
            duration: row.try_get("duration")?,
            duration_in_months: row.try_get("duration_in_months")?,
            stripe_coupon_id: key,
        },
        deleted_at: row.try_get("deleted_at")?,
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
    })
}

fn discount_from_row(row: &Row) -> Result<DiscountSnapshot, Error> {
    Ok(DiscountSnapshot {
        stripe_discount_id: row.try_get("stripe_discount_id")?,
        stripe_coupon_id: row.try_get("stripe_coupon_id")?,
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        stripe_subscription_id: row.try_get("stripe_subscription_id")?,
        ended_at: row.try_get("ended_at")?,
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
    })
}
