-- Retention: how long instances of a name are kept after their end, and when an ended one is to go.
-- The deadline stands in the row, so that whoever ends an instance and whoever deletes it needs no code of the orchestration.

CREATE TABLE expiry (
    name  TEXT    NOT NULL PRIMARY KEY,
    after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE instance ADD COLUMN expires_at INTEGER;

-- Only what is to go stands in it: to find that there is nothing costs one look.
CREATE INDEX instance_expiry ON instance (expires_at) WHERE expires_at IS NOT NULL;
