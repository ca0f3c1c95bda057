//! `checkout_sessions`: which customer bought which plan.

use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::{Error, columns};
use domain::stripe_objects::customer::CheckoutSession;

/// The sessions with these ids, or of these subscriptions or intents.
pub async fn get(
    db: &impl GenericClient,
    session_ids: &[String],
    subscription_ids: &[String],
    intent_ids: &[String],
) -> Result<Vec<CheckoutSession>, Error> {
    let rows = db
        .query_typed(
            "-- checkout_sessions::get
             SELECT stripe_checkout_session_id, stripe_customer_id, stripe_subscription_id,
                    stripe_payment_intent_id, stripe_invoice_id, user_id, plan_name, mode, status,
                    payment_status, metadata, created_at, source_created_at, source_rank,
                    source_event_id
             FROM checkout_sessions
             WHERE stripe_checkout_session_id = ANY($1) OR stripe_subscription_id = ANY($2)
                OR stripe_payment_intent_id = ANY($3)",
            &[
                (&session_ids, Type::TEXT_ARRAY),
                (&subscription_ids, Type::TEXT_ARRAY),
                (&intent_ids, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Inserts or replaces the row.
pub async fn upsert(
    db: &impl GenericClient,
    session: &CheckoutSession,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- checkout_sessions::upsert
             INSERT INTO checkout_sessions (stripe_checkout_session_id, stripe_customer_id,
                 stripe_subscription_id, stripe_payment_intent_id, stripe_invoice_id, user_id,
                 plan_name, mode, status, payment_status, metadata, created_at, source_created_at,
                 source_rank, source_event_id, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
             ON CONFLICT (stripe_checkout_session_id) DO UPDATE SET
                 stripe_customer_id = excluded.stripe_customer_id,
                 stripe_subscription_id = excluded.stripe_subscription_id,
                 stripe_payment_intent_id = excluded.stripe_payment_intent_id,
                 stripe_invoice_id = excluded.stripe_invoice_id, user_id = excluded.user_id,
                 plan_name = excluded.plan_name, mode = excluded.mode, status = excluded.status,
                 payment_status = excluded.payment_status, metadata = excluded.metadata,
                 created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&session.stripe_checkout_session_id, Type::TEXT),
                (&session.stripe_customer_id, Type::TEXT),
                (&session.stripe_subscription_id, Type::TEXT),
                (&session.stripe_payment_intent_id, Type::TEXT),
                (&session.stripe_invoice_id, Type::TEXT),
                (&session.user_id, Type::INT4),
                (&session.plan_name, Type::TEXT),
                (&session.mode, Type::TEXT),
                (&session.status, Type::TEXT),
                (&session.payment_status, Type::TEXT),
                (&session.metadata, Type::JSONB),
                (&session.created_at, Type::TIMESTAMPTZ),
                (&session.version.created_at, Type::TIMESTAMPTZ),
                (&session.version.rank, Type::INT4),
                (&session.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("checkout_sessions::upsert", 1, changed)
}

fn from_row(row: &Row) -> Result<CheckoutSession, Error> {
    Ok(CheckoutSession {
        stripe_checkout_session_id: row.try_get("stripe_checkout_session_id")?,
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        stripe_subscription_id: row.try_get("stripe_subscription_id")?,
        stripe_payment_intent_id: row.try_get("stripe_payment_intent_id")?,
        stripe_invoice_id: row.try_get("stripe_invoice_id")?,
        user_id: row.try_get("user_id")?,
        plan_name: row.try_get("plan_name")?,
        mode: row.try_get("mode")?,
        status: row.try_get("status")?,
        payment_status: row.try_get("payment_status")?,
        metadata: row.try_get("metadata")?,
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
    })
}
