-- At Stripe 500 is UGX 5, as with ISK. What was entered here in whole shillings (contracts, plan limits, credits, usage,
-- invoices that Stripe does not have, payments outside Stripe) becomes hundredths, with the sums over it. What came from
-- Stripe is in hundredths already.

-- at once: between two slices one table would be in shillings and the next in hundredths, and a second run would multiply again
UPDATE api_partner_contracts SET
    monthly_flat_fee_cents = monthly_flat_fee_cents * 100,
    per_deed_price_cents = per_deed_price_cents * 100,
    per_1000_requests_cents = per_1000_requests_cents * 100,
    minimum_commitment_cents = minimum_commitment_cents * 100
WHERE currency = 'UGX';

-- at once: as above
UPDATE plan_limits SET
    overage_price_cents = overage_price_cents * 100,
    upgrade_price_cents = upgrade_price_cents * 100
WHERE currency = 'UGX';

-- A credit that a refund at Stripe became has Stripe's amount.
-- at once: as above
UPDATE credit_applications SET amount_cents = amount_cents * 100
WHERE credit_id IN (SELECT id FROM credits WHERE currency = 'UGX' AND stripe_refund_id IS NULL);

-- at once: as above
UPDATE credits SET amount_cents = amount_cents * 100, remaining_cents = remaining_cents * 100
WHERE currency = 'UGX' AND stripe_refund_id IS NULL;

-- at once: as above
UPDATE usage_events SET unit_price_cents = unit_price_cents * 100 WHERE currency = 'UGX';

-- at once: as above
UPDATE usage_daily SET amount_cents = amount_cents * 100 WHERE currency = 'UGX';

-- at once: as above
UPDATE invoiced_usage SET amount_cents = amount_cents * 100
WHERE contract_id IN (SELECT id FROM api_partner_contracts WHERE currency = 'UGX');

-- at once: as above
UPDATE invoices SET
    subtotal_cents = subtotal_cents * 100,
    tax_cents = tax_cents * 100,
    discount_cents = discount_cents * 100,
    total_cents = total_cents * 100,
    amount_paid_cents = amount_paid_cents * 100,
    amount_due_cents = amount_due_cents * 100,
    credit_applied_cents = credit_applied_cents * 100,
    out_of_band_cents = out_of_band_cents * 100
WHERE currency = 'UGX' AND stripe_invoice_id IS NULL;

-- at once: as above
WITH outside AS (
    UPDATE payment_history SET
        amount_cents = amount_cents * 100,
        net_amount_cents = net_amount_cents * 100,
        stripe_fee_cents = stripe_fee_cents * 100,
        refund_amount_cents = refund_amount_cents * 100,
        disputed_amount_cents = disputed_amount_cents * 100
    WHERE currency = 'UGX' AND stripe_payment_intent_id IS NULL AND stripe_charge_id IS NULL
      AND stripe_invoice_id IS NULL
    RETURNING payment_key
), entries AS (
    UPDATE revenue_entries SET amount_cents = amount_cents * 100
    WHERE currency = 'UGX' AND payment_key IN (SELECT payment_key FROM outside)
    RETURNING day, kind, amount_cents
), days AS (
    -- A hundredth of the new amount is in the sums.
    SELECT day,
           coalesce(sum(amount_cents - amount_cents / 100) FILTER (WHERE kind = 'gross'), 0) AS gross_cents,
           coalesce(sum(amount_cents - amount_cents / 100) FILTER (WHERE kind = 'fee'), 0) AS fees_cents,
           coalesce(sum(amount_cents - amount_cents / 100) FILTER (WHERE kind = 'refund'), 0) AS refunds_cents
    FROM entries GROUP BY day
)
UPDATE revenue_daily AS stored SET
    gross_cents = stored.gross_cents + days.gross_cents,
    fees_cents = stored.fees_cents + days.fees_cents,
    refunds_cents = stored.refunds_cents + days.refunds_cents
FROM days WHERE stored.day = days.day AND stored.currency = 'UGX';

-- Amounts within JSON, by their text: "…_cents": 5 and "unit_amount_decimal": "0.125".
-- at once: as above
DO $$
DECLARE
    stored record;
BEGIN
    FOR stored IN SELECT * FROM (VALUES
        ('api_partner_contracts', 'tiers', 'currency = ''UGX'''),
        ('invoiced_usage', 'terms', 'contract_id IN (SELECT id FROM api_partner_contracts WHERE currency = ''UGX'')'),
        ('settled_periods', 'terms', 'contract_id IN (SELECT id FROM api_partner_contracts WHERE currency = ''UGX'')'),
        ('invoices', 'line_items', 'currency = ''UGX'' AND stripe_invoice_id IS NULL'),
        ('invoices', 'tax_breakdown', 'currency = ''UGX'' AND stripe_invoice_id IS NULL'),
        ('invoices', 'metadata', 'currency = ''UGX'' AND stripe_invoice_id IS NULL')
    ) AS columns (of_table, name, condition) LOOP
        EXECUTE format($update$
            UPDATE %1$I SET %2$I = (
                SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
                    regexp_replace(%2$I::text,
                        '("[a-z0-9_]*_cents": -?[1-9][0-9]*)', '\100', 'g'),
                        '("unit_amount_decimal": "-?[0-9]+)"', '\100"', 'g'),
                        '("unit_amount_decimal": "-?[0-9]+)\.([0-9])"', '\1\20"', 'g'),
                        '("unit_amount_decimal": "-?[0-9]+)\.([0-9]{2})"', '\1\2"', 'g'),
                        '("unit_amount_decimal": "-?[0-9]+)\.([0-9]{2})([0-9]+)"', '\1\2.\3"', 'g'),
                        '("unit_amount_decimal": "-?)0+([0-9])', '\1\2', 'g')::jsonb)
            WHERE %2$I IS NOT NULL AND %3$s$update$, stored.of_table, stored.name, stored.condition);
    END LOOP;
END $$;
