-- Disputes of which nobody has told what moved their money are looked up. There are few: the others have become balance
-- transactions.
INSERT INTO stripe_lookups (kind, stripe_id, reason, requested_at)
SELECT 'dispute', stripe_dispute_id, 'transactions', created_at
FROM disputes
WHERE balance_transaction_ids IS NULL
  AND NOT EXISTS (SELECT FROM stripe_lookups
                  WHERE kind = 'dispute' AND stripe_id = stripe_dispute_id AND reason = 'transactions')
ORDER BY stripe_dispute_id LIMIT $1
ON CONFLICT (kind, stripe_id, reason) WHERE done_at IS NULL DO NOTHING;
