-- A deploy does not wait for every migration (docs/migrations.md): the others are recorded before they are done, and say
-- how far they are. Functions and grants are applied whenever their text is new.

ALTER TABLE billing_migrations
    ADD COLUMN state TEXT NOT NULL DEFAULT 'done' CHECK (state IN ('running', 'done')), -- running or done
    ADD COLUMN slices BIGINT NOT NULL DEFAULT 0,                -- slices that a backfill has committed
    ADD COLUMN rows_done BIGINT NOT NULL DEFAULT 0,             -- rows that those changed
    ADD COLUMN leased_until TIMESTAMPTZ;                        -- when others may go on with it; NULL before its first run

CREATE TABLE billing_repeatables (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,         -- the order of application
    sha256 TEXT NOT NULL,                                       -- hex digest of functions/*.sql and roles.sql; its first 8 digits end the functions' names
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()               -- when
);
