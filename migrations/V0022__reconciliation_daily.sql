-- What the daily comparison reads by, and that a run tells each difference once.

CREATE INDEX payment_intents_created_at_idx ON payment_intents (created_at);
CREATE UNIQUE INDEX reconciliation_items_run_object_kind_key
    ON reconciliation_items (run_id, object_type, object_id, kind);
