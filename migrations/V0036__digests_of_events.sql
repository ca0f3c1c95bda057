-- Which of the events of one second came last is decided by what each shows and what was before it. Digests of both are
-- stored with the event, so that the payloads of the second need not be read again for each of its events.

ALTER TABLE stripe_events
    ADD COLUMN rank INTEGER,            -- of the shown status within one second, 0 when nothing is shown; NULL until digested
    ADD COLUMN state_digest BIGINT,     -- of the object that the event shows; NULL when the ledger has no use for it
    ADD COLUMN previous_digest BIGINT;  -- of the object before the change, as far as the event says; NULL when it does not
