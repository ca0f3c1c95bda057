//! `checkout_sessions`: which customer bought which plan.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::mirror::{self, mirrored};
use domain::stripe_objects::customer::CheckoutSession;
use domain::stripe_objects::snapshot::Version;

mirrored!(CheckoutSession => "checkout_sessions" by "(stripe_checkout_session_id)" {
    stripe_checkout_session_id,
    stripe_customer_id,
    stripe_subscription_id,
    stripe_payment_intent_id,
    stripe_invoice_id,
    user_id,
    plan_name,
    mode,
    status,
    payment_status,
    metadata,
    created_at,
    ..version: Version,
});

/// The sessions with these ids, or of these subscriptions or intents.
pub async fn get(
    db: &impl GenericClient,
    session_ids: &[String],
    subscription_ids: &[String],
    intent_ids: &[String],
) -> Result<Vec<CheckoutSession>, Error> {
    mirror::select(
        db,
        "get",
        "stripe_checkout_session_id = ANY($1) OR stripe_subscription_id = ANY($2)
            OR stripe_payment_intent_id = ANY($3)",
        &[
            (&session_ids, Type::TEXT_ARRAY),
            (&subscription_ids, Type::TEXT_ARRAY),
            (&intent_ids, Type::TEXT_ARRAY),
        ],
    )
    .await
}
