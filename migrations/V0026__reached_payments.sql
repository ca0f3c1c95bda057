-- Which payments the ids of an event lead to, asked by seven statements of every event that concerns money. Postgres
-- plans what is in a function once per session, and the same text in a statement every time: that was most of an event.

CREATE FUNCTION billing_reached_payments(named_intents TEXT[], named_charges TEXT[], named_invoices TEXT[])
RETURNS TABLE (intents TEXT[], charges TEXT[])
LANGUAGE plpgsql STABLE ROWS 1 SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    -- Arrays, because `= ANY (array)` reads an index where `IN (SELECT …)` under an OR does not.
    intents := named_intents
        || ARRAY(SELECT stripe_payment_intent_id FROM payment_attempts
                 WHERE stripe_charge_id = ANY (named_charges) AND stripe_payment_intent_id IS NOT NULL)
        || ARRAY(SELECT stripe_payment_intent_id FROM payment_intents
                 WHERE latest_charge_id = ANY (named_charges))
        || ARRAY(SELECT stripe_payment_intent_id FROM invoice_payments
                 WHERE stripe_invoice_id = ANY (named_invoices) AND stripe_payment_intent_id IS NOT NULL);
    charges := named_charges
        || ARRAY(SELECT stripe_charge_id FROM payment_attempts
                 WHERE stripe_payment_intent_id = ANY (intents))
        || ARRAY(SELECT latest_charge_id FROM payment_intents
                 WHERE stripe_payment_intent_id = ANY (intents) AND latest_charge_id IS NOT NULL)
        || ARRAY(SELECT stripe_charge_id FROM invoice_payments
                 WHERE stripe_invoice_id = ANY (named_invoices) AND stripe_charge_id IS NOT NULL);
    RETURN NEXT;
END
$$;

-- Its statements, too, are the same whatever the subscription: planned once per session.
ALTER FUNCTION billing_keep_status_changes() SET plan_cache_mode = force_generic_plan;
