-- What the admin's writes leave behind: the answer each key got, and what a payment outside Stripe
-- is known by at the bank.

CREATE TABLE idempotency_keys (
    key TEXT CONSTRAINT idempotency_keys_pkey PRIMARY KEY,      -- the caller's; committed with the effect
    route TEXT NOT NULL,                                        -- method and path it was first used on
    request_sha256 TEXT NOT NULL,                               -- hex digest of the body it came with
    status INT,                                                 -- of the answer; NULL only until the commit
    body TEXT,                                                  -- the answer; NULL only until the commit
    created_at TIMESTAMPTZ NOT NULL                             -- when the key was first used
);

ALTER TABLE payment_history
    ADD COLUMN reference TEXT;                                  -- of a wire, a check or an ACH transfer
