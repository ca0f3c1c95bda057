-- The tax report reads the credit notes that were voided in a period.
CREATE INDEX CONCURRENTLY IF NOT EXISTS credit_notes_voided_at_idx ON credit_notes (voided_at)
    WHERE voided_at IS NOT NULL;
