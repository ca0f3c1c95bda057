-- Disputes of which nobody has told what moved their money are looked up. There are few: the others have become balance
-- transactions.
WITH taken AS (
    SELECT stripe_dispute_id AS id, source_event_id, created_at, currency, amount_cents FROM disputes
    WHERE balance_transaction_ids IS NULL AND NOT 'transactions' = ANY (partial)
    ORDER BY stripe_dispute_id LIMIT $1 FOR UPDATE
), noted AS (
    UPDATE disputes SET partial = ARRAY(SELECT unnest(partial || '{transactions}') ORDER BY 1)
    FROM taken WHERE stripe_dispute_id = taken.id
)
INSERT INTO stripe_lookups (subject, subject_type, event_id, kind, stripe_id, reason, requested_at, due_at, currency,
    figure_at, amount_cents)
SELECT id, 'dispute', source_event_id, 'dispute', id, 'transactions', created_at, created_at, currency, created_at,
       amount_cents
FROM taken;
