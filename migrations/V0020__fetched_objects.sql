-- Snapshots that no event carries: subscriptions fetched from Stripe that name a price or a coupon nobody knows yet.
-- They are read again when it becomes known, as the archived events are.

CREATE TABLE fetched_objects (
    source_event_id TEXT CONSTRAINT fetched_objects_pkey PRIMARY KEY, -- fetch:<id>:<unix second>, as in the versions
    stripe_subscription_id TEXT NOT NULL,                       -- whose version waits
    payload JSONB NOT NULL,                                     -- the object as fetched
    fetched_at TIMESTAMPTZ NOT NULL                             -- when
);
