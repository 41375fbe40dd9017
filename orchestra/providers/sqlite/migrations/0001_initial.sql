-- The first schema. Columns that nothing reads yet are reserved, so that later features need no rewrite of large tables.
-- Instants are microseconds UTC. The instance id comes first in every key, so that an instance lies together on disk.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE kind (
    kind_id  INTEGER PRIMARY KEY,
    queue    TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    version  TEXT    NOT NULL,
    format   INTEGER NOT NULL,
    floating INTEGER NOT NULL,
    UNIQUE (name, version, queue, format, floating)
) STRICT;

-- The hot row: what every write changes.
CREATE TABLE instance (
    instance_id    TEXT    NOT NULL PRIMARY KEY,
    incarnation    TEXT    NOT NULL,
    kind           INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    owner          TEXT,
    wake_at        INTEGER,
    status         INTEGER NOT NULL,
    held           INTEGER NOT NULL,
    inbox_seq      INTEGER NOT NULL,
    seen_seq       INTEGER NOT NULL,
    execution      INTEGER NOT NULL,
    opened         INTEGER NOT NULL,
    takeovers      INTEGER NOT NULL,
    priority       INTEGER NOT NULL DEFAULT 0,
    history_events INTEGER NOT NULL,
    history_bytes  INTEGER NOT NULL,
    cancel_at      INTEGER,
    cancel_reason  TEXT,
    cancel_by      TEXT,
    cancel_seq     INTEGER,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    summary        BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- Claims probe per kind (protocol rule 24); parked and foreign rows cost nothing.
CREATE INDEX instance_claim ON instance (kind, wake_at)
    WHERE owner IS NULL AND status = 0 AND held = 0 AND wake_at IS NOT NULL;
CREATE INDEX instance_owner ON instance (owner) WHERE owner IS NOT NULL;
CREATE INDEX instance_news ON instance (owner) WHERE owner IS NOT NULL AND inbox_seq > seen_seq;
CREATE INDEX instance_held ON instance (kind) WHERE held = 1;
CREATE INDEX instance_created ON instance (created_at, instance_id);

-- The cold row: written at the start, and by rare events.
CREATE TABLE instance_detail (
    instance_id            TEXT NOT NULL PRIMARY KEY,
    request_id             TEXT NOT NULL,
    created_by             TEXT NOT NULL,
    custom_status          BLOB,
    custom_status_encoding INTEGER,
    hold                   BLOB,
    pin                    BLOB,
    unread_at_end          BLOB,
    parent_id              TEXT,
    parent_incarnation     TEXT,
    parent_execution       INTEGER,
    parent_event           INTEGER,
    root_id                TEXT,
    boundary_due           INTEGER,
    deadline               INTEGER,
    not_before             INTEGER,
    schedule_id            TEXT,
    schedule_tick          INTEGER,
    traceparent            TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE label (
    instance_id TEXT NOT NULL,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (instance_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX label_value ON label (key, value);

CREATE TABLE execution (
    instance_id     TEXT    NOT NULL,
    execution       INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    version_key     TEXT    NOT NULL,
    resolved_how    TEXT    NOT NULL,
    resolved_by     TEXT    NOT NULL,
    policy_revision INTEGER NOT NULL,
    state           BLOB    NOT NULL,
    state_encoding  INTEGER NOT NULL,
    state_version   TEXT,
    created_at      INTEGER NOT NULL,
    format          INTEGER,
    fingerprint     TEXT,
    opened_at       INTEGER,
    closed_at       INTEGER,
    end_kind        INTEGER,
    output          BLOB,
    output_encoding INTEGER,
    error           BLOB,
    event_count     INTEGER NOT NULL,
    byte_count      INTEGER NOT NULL,
    migration_path  BLOB,
    traceparent     TEXT,
    PRIMARY KEY (instance_id, execution)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
    instance_id TEXT    NOT NULL,
    execution   INTEGER NOT NULL,
    event_id    INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    format      INTEGER NOT NULL,
    envelope    BLOB    NOT NULL,
    payload     BLOB,
    encoding    INTEGER,
    PRIMARY KEY (instance_id, execution, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    instance_id TEXT    NOT NULL,
    sequence    INTEGER NOT NULL,
    message_id  TEXT    NOT NULL,
    sender      TEXT    NOT NULL,
    kind        INTEGER NOT NULL DEFAULT 0,
    name        TEXT    NOT NULL,
    payload     BLOB    NOT NULL,
    encoding    INTEGER NOT NULL,
    sent_at     INTEGER NOT NULL,
    expires_at  INTEGER,
    traceparent TEXT,
    PRIMARY KEY (instance_id, sequence)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX message_identity ON message (instance_id, message_id);

-- A removed message is remembered for a window, so that its sender may ask again (protocol rule 21).
CREATE TABLE tombstone (
    instance_id TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    sequence    INTEGER NOT NULL,
    removed_at  INTEGER NOT NULL,
    PRIMARY KEY (instance_id, message_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tombstone_age ON tombstone (removed_at);

CREATE TABLE activity (
    instance_id        TEXT    NOT NULL,
    execution          INTEGER NOT NULL,
    event_id           INTEGER NOT NULL,
    attempt            INTEGER NOT NULL,
    due                INTEGER,
    started_at         INTEGER NOT NULL,
    attempts           BLOB    NOT NULL,
    heartbeat          BLOB,
    heartbeat_encoding INTEGER,
    queue              TEXT,
    owner              TEXT,
    revision           INTEGER NOT NULL DEFAULT 0,
    deadline           INTEGER,
    priority           INTEGER NOT NULL DEFAULT 0,
    traceparent        TEXT,
    PRIMARY KEY (instance_id, execution, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE node (
    node_id    TEXT    NOT NULL PRIMARY KEY,
    host       TEXT    NOT NULL,
    boot_id    TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    library    TEXT    NOT NULL,
    abilities  BLOB    NOT NULL,
    lease      INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL,
    renewals   INTEGER NOT NULL,
    dead       INTEGER NOT NULL,
    load       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE capability (
    node_id     TEXT NOT NULL,
    name        TEXT NOT NULL,
    version     TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (node_id, name, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE node_activity (
    node_id TEXT NOT NULL,
    name    TEXT NOT NULL,
    PRIMARY KEY (node_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE policy (
    name     TEXT    NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    value    TEXT    NOT NULL,
    set_by   TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    set_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What operators did: the audit.
CREATE TABLE operation (
    operation_id INTEGER PRIMARY KEY,
    at           INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    action       TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    detail       BLOB    NOT NULL
) STRICT;
