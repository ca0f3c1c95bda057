-- Lists, newest first, page by page: each filter has an index that ends in what the pages are
-- sorted by, so that a page reads the rows it shows, however long the history. Those of V0004,
-- V0005 and V0009 that led with the same column go; the new ones serve their readers too.

DROP INDEX IF EXISTS subscriptions_stripe_customer_id_idx;
DROP INDEX IF EXISTS subscriptions_user_id_idx;
DROP INDEX IF EXISTS subscriptions_status_idx;
CREATE INDEX subscriptions_stripe_customer_id_created_at_id_idx ON subscriptions (stripe_customer_id, created_at, id);
CREATE INDEX subscriptions_user_id_created_at_id_idx ON subscriptions (user_id, created_at, id);
CREATE INDEX subscriptions_status_created_at_id_idx ON subscriptions (status, created_at, id);
CREATE INDEX subscriptions_plan_name_created_at_id_idx ON subscriptions (plan_name, created_at, id);

DROP INDEX IF EXISTS invoices_stripe_customer_id_idx;
DROP INDEX IF EXISTS invoices_user_id_idx;
DROP INDEX IF EXISTS invoices_api_key_prefix_idx;
DROP INDEX IF EXISTS invoices_status_idx;
CREATE INDEX invoices_stripe_customer_id_created_at_id_idx ON invoices (stripe_customer_id, created_at, id);
CREATE INDEX invoices_user_id_created_at_id_idx ON invoices (user_id, created_at, id);
-- Most invoices have no partner, and need not be in it.
CREATE INDEX invoices_api_key_prefix_created_at_id_idx ON invoices (api_key_prefix, created_at, id)
    WHERE api_key_prefix IS NOT NULL;
CREATE INDEX invoices_status_created_at_id_idx ON invoices (status, created_at, id);
CREATE INDEX invoices_kind_created_at_id_idx ON invoices (kind, created_at, id);

-- The payments of one invoice are few: payment_history_invoice_id_idx stays as it is.
DROP INDEX IF EXISTS payment_history_stripe_customer_id_idx;
DROP INDEX IF EXISTS payment_history_user_id_idx;
DROP INDEX IF EXISTS payment_history_status_idx;
CREATE INDEX payment_history_stripe_customer_id_created_at_id_idx
    ON payment_history (stripe_customer_id, created_at, id);
CREATE INDEX payment_history_user_id_created_at_id_idx ON payment_history (user_id, created_at, id);
CREATE INDEX payment_history_status_created_at_id_idx ON payment_history (status, created_at, id);

-- A customer that is only named so far has no date and comes last.
CREATE INDEX customers_listed_idx
    ON customers (COALESCE(created_at, TIMESTAMPTZ '1970-01-01 00:00:00+00'), stripe_customer_id);

CREATE INDEX api_partner_contracts_created_at_id_idx ON api_partner_contracts (created_at, id);
CREATE INDEX api_partner_contracts_status_created_at_id_idx ON api_partner_contracts (status, created_at, id);

DROP INDEX IF EXISTS credits_user_id_idx;
DROP INDEX IF EXISTS credits_api_key_prefix_idx;
CREATE INDEX credits_created_at_id_idx ON credits (created_at, id);
CREATE INDEX credits_user_id_created_at_id_idx ON credits (user_id, created_at, id);
CREATE INDEX credits_api_key_prefix_created_at_id_idx ON credits (api_key_prefix, created_at, id);

-- An event that does not say when it was created counts from when it came in.
DROP INDEX IF EXISTS stripe_events_outcome_created_at_idx;
CREATE INDEX stripe_events_listed_idx ON stripe_events (COALESCE(created_at, received_at), event_id);
CREATE INDEX stripe_events_outcome_listed_idx
    ON stripe_events (outcome, COALESCE(created_at, received_at), event_id);
CREATE INDEX stripe_events_type_listed_idx ON stripe_events (type, COALESCE(created_at, received_at), event_id);

DROP INDEX IF EXISTS audit_log_target_idx;
CREATE INDEX audit_log_at_id_idx ON audit_log (at, id);
CREATE INDEX audit_log_actor_at_id_idx ON audit_log (actor, at, id);
CREATE INDEX audit_log_action_at_id_idx ON audit_log (action, at, id);
CREATE INDEX audit_log_target_at_id_idx ON audit_log (target, at, id);

DROP INDEX IF EXISTS reconciliation_runs_started_at_idx;
DROP INDEX IF EXISTS reconciliation_items_run_id_idx;
CREATE INDEX reconciliation_runs_started_at_run_id_idx ON reconciliation_runs (started_at, run_id);
CREATE INDEX reconciliation_items_run_id_id_idx ON reconciliation_items (run_id, id);
