//! `checkout_sessions`: which customer bought which plan.

use super::mirror::mirrored;
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
