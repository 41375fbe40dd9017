-- What operators control: holds, nudges, boundaries that are due, delayed starts, rewinds and restarts.

ALTER TABLE instance ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN boundary_due INTEGER;
ALTER TABLE instance ADD COLUMN not_before INTEGER;
CREATE INDEX instance_boundary ON instance (boundary_due) WHERE boundary_due IS NOT NULL;

ALTER TABLE instance_detail ADD COLUMN operator_hold BLOB;
ALTER TABLE instance_detail ADD COLUMN nudge BLOB;

ALTER TABLE execution ADD COLUMN request_id TEXT;
ALTER TABLE execution ADD COLUMN patches TEXT;

-- No node takes an activity of an instance that an operator holds.
ALTER TABLE activity ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
DROP INDEX activity_claim;
CREATE INDEX activity_claim ON activity (queue, name, started_at)
    WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL AND paused = 0;

-- Messages whose payload no code could decode.
CREATE TABLE set_aside (
    instance_id  TEXT    NOT NULL,
    sequence     INTEGER NOT NULL,
    message_id   TEXT    NOT NULL,
    sender       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    encoding     INTEGER NOT NULL,
    sent_at      INTEGER NOT NULL,
    traceparent  TEXT,
    reason       TEXT    NOT NULL,
    set_aside_at INTEGER NOT NULL,
    PRIMARY KEY (instance_id, sequence)
) STRICT, WITHOUT ROWID;
