-- Usage beyond the events themselves: the rollup that limits and invoices read, and alerts sent.

CREATE TABLE usage_daily (
    subject TEXT NOT NULL,                                      -- 'user:<id>' or 'partner:<prefix>'
    day DATE NOT NULL,                                          -- UTC day of usage_events.created_at
    event_type TEXT NOT NULL,                                   -- what was used
    currency TEXT NOT NULL,                                     -- of amount_cents
    events BIGINT NOT NULL DEFAULT 0,                           -- number of events not voided
    units BIGINT NOT NULL DEFAULT 0,                            -- Σ cost_units
    billable_units BIGINT NOT NULL DEFAULT 0,                   -- Σ cost_units of billable events
    amount_cents BIGINT NOT NULL DEFAULT 0,                     -- Σ cost_units × unit price of billable events
    CONSTRAINT usage_daily_pkey PRIMARY KEY (subject, day, event_type, currency)
);

CREATE TABLE usage_alerts (
    subject TEXT NOT NULL,                                      -- 'user:<id>' or 'partner:<prefix>'
    month DATE NOT NULL,                                        -- first of the month, UTC
    threshold_pct INT NOT NULL,                                 -- 80 or 100
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),              -- when it fired
    CONSTRAINT usage_alerts_pkey PRIMARY KEY (subject, month, threshold_pct)
);
