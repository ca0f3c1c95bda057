-- Every event rewrites rows: room in their pages keeps the new version beside the old one, without new index entries
-- where no indexed column changes. Payloads are compressed with lz4, which takes a fraction of the time of pglz; what is
-- stored already stays as it is.

ALTER TABLE revenue_daily SET (fillfactor = 50);
ALTER TABLE mrr_daily SET (fillfactor = 50);
ALTER TABLE subscriptions_daily SET (fillfactor = 50);
ALTER TABLE customers SET (fillfactor = 85);
ALTER TABLE subscriptions SET (fillfactor = 85);
ALTER TABLE invoices SET (fillfactor = 85);
ALTER TABLE payment_intents SET (fillfactor = 85);
ALTER TABLE payment_attempts SET (fillfactor = 85);
ALTER TABLE payment_history SET (fillfactor = 85);
ALTER TABLE outbox SET (fillfactor = 85);

DO $$
BEGIN
    ALTER TABLE stripe_events ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server was built without lz4: payloads stay compressed with pglz';
END
$$;
