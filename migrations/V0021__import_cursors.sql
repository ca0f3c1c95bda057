-- How far the runs came that read a whole list of Stripe's: a run that is cut off goes on where it was.

CREATE TABLE import_cursors (
    name TEXT CONSTRAINT import_cursors_pkey PRIMARY KEY,       -- missed-webhooks, backfill, backfill:<since>
    state JSONB NOT NULL,                                       -- where it is, as the run writes it
    started_at TIMESTAMPTZ NOT NULL,                            -- the first run
    updated_at TIMESTAMPTZ NOT NULL,                            -- the last slice that was committed
    finished_at TIMESTAMPTZ                                     -- the end of the list; NULL = under way
);
