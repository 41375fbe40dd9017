-- What instances publish: their streams, and the items. An item's offset is made under the lock of the instance.

CREATE TABLE stream (
    instance_id  TEXT    NOT NULL,
    stream       TEXT    NOT NULL,
    incarnation  TEXT    NOT NULL,
    first_offset INTEGER NOT NULL,
    last_offset  INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    first_at     INTEGER NOT NULL,
    PRIMARY KEY (instance_id, stream)
) STRICT, WITHOUT ROWID;

CREATE TABLE stream_item (
    instance_id    TEXT    NOT NULL,
    stream         TEXT    NOT NULL,
    item_offset    INTEGER NOT NULL,
    payload        BLOB    NOT NULL,
    encoding       INTEGER NOT NULL,
    at             INTEGER NOT NULL,
    execution      INTEGER NOT NULL,
    event_id       INTEGER,
    attempt        INTEGER,
    attempt_number INTEGER NOT NULL,
    PRIMARY KEY (instance_id, stream, item_offset)
) STRICT, WITHOUT ROWID;
