-- A key belongs to who uses it and to the route: the same text of somebody else, or on another route, is another key.
--
-- `key` stays the primary key, since the functions of the release before still take keys by it while this release is
-- rolled out. From now on a use has two rows: one whose key is `<sha256 of actor and route, in hex>:<text>`, and one
-- under the text alone, where functions of the release before look. A later release may drop the latter.

ALTER TABLE idempotency_keys
    ADD COLUMN actor TEXT;                                      -- whose key; NULL before V0031, when it was nobody's
