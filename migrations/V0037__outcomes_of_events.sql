-- Events that are not ours are kept; so will be thin ones until what they name is fetched, and those that were parked and
-- whose object was fetched instead. The check is widened: the release before writes what the old one allowed.

-- contract: unused since V0032
ALTER TABLE stripe_events DROP CONSTRAINT stripe_events_outcome_check;
ALTER TABLE stripe_events ADD CONSTRAINT stripe_events_outcome_check
    CHECK (outcome IN ('applied', 'ignored', 'failed', 'foreign', 'deferred', 'healed')) NOT VALID;
