-- This release reads more of events than the one before. The redrive reads the archive again, in slices.
INSERT INTO import_cursors (name, state, started_at, updated_at)
SELECT 'rebuild', '{}', now(), now() WHERE EXISTS (SELECT FROM stripe_events)
ON CONFLICT (name) DO UPDATE SET state = '{}', started_at = now(), updated_at = now(), finished_at = NULL;
