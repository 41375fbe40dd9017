-- Schedules, and what became of their slots. The index holds those alone that are due at some time.

CREATE TABLE schedule (
    schedule_id TEXT    NOT NULL PRIMARY KEY,
    incarnation TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    definition  BLOB    NOT NULL,
    state       BLOB    NOT NULL,
    value       BLOB    NOT NULL,
    value_encoding INTEGER NOT NULL,
    next_at     INTEGER,
    paused      INTEGER NOT NULL,
    level       INTEGER NOT NULL,
    declared    INTEGER,
    declared_at INTEGER,
    edition     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    changed_by  TEXT    NOT NULL,
    request_id  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_due ON schedule (next_at, schedule_id) WHERE next_at IS NOT NULL;

CREATE TABLE schedule_slot (
    schedule_id TEXT    NOT NULL,
    slot        INTEGER NOT NULL,
    cause       TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    instance_id TEXT,
    at          INTEGER NOT NULL,
    follows     INTEGER NOT NULL,
    first_slot  INTEGER,
    slot_count  INTEGER NOT NULL,
    more        INTEGER NOT NULL,
    late        INTEGER NOT NULL,
    ended       TEXT,
    PRIMARY KEY (schedule_id, slot, cause)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_slot_followed ON schedule_slot (schedule_id, slot) WHERE follows = 1;

CREATE INDEX instance_schedule ON instance_detail (schedule_id, schedule_tick) WHERE schedule_id IS NOT NULL;
