-- The user of a payment may be its session's, and a session is read with its payment.
CREATE INDEX CONCURRENTLY IF NOT EXISTS checkout_sessions_stripe_payment_intent_id_idx
    ON checkout_sessions (stripe_payment_intent_id);
