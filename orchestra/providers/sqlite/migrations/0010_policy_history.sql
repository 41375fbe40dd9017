-- The former policies of a name: a change moves the row that stood in the table policy to this one.

CREATE TABLE policy_history (
    name     TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    value    TEXT    NOT NULL,
    set_by   TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    set_at   INTEGER NOT NULL,
    PRIMARY KEY (name, revision)
) STRICT, WITHOUT ROWID;
