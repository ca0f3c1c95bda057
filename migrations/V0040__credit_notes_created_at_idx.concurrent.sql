-- The tax report reads the credit notes of a period.
CREATE INDEX CONCURRENTLY IF NOT EXISTS credit_notes_created_at_idx ON credit_notes (created_at);
