-- How many instances there are of each kind, status and hold. Triggers keep the numbers, so that libraries that do not know of
-- them keep them right, too; a count then costs as many rows as there are kinds. A number that has become 0 may stay.

CREATE TABLE tally (
    kind   INTEGER NOT NULL,
    status INTEGER NOT NULL,
    held   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (kind, status, held)
) STRICT, WITHOUT ROWID;

INSERT INTO tally (kind, status, held, number)
    SELECT kind, status, held, count(*) FROM instance GROUP BY kind, status, held;

CREATE TRIGGER tally_of_new AFTER INSERT ON instance BEGIN
    INSERT INTO tally (kind, status, held, number) VALUES (new.kind, new.status, new.held, 1)
        ON CONFLICT (kind, status, held) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER tally_of_changed AFTER UPDATE OF kind, status, held ON instance
WHEN old.kind <> new.kind OR old.status <> new.status OR old.held <> new.held BEGIN
    UPDATE tally SET number = number - 1 WHERE kind = old.kind AND status = old.status AND held = old.held;
    INSERT INTO tally (kind, status, held, number) VALUES (new.kind, new.status, new.held, 1)
        ON CONFLICT (kind, status, held) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER tally_of_deleted AFTER DELETE ON instance BEGIN
    UPDATE tally SET number = number - 1 WHERE kind = old.kind AND status = old.status AND held = old.held;
END;

-- For reports of versions. The groups of open executions: one version, one code, one way of choosing it, the same marks.
CREATE INDEX execution_open ON execution
    (name, version, coalesce(fingerprint, ''), resolved_how, coalesce(patches, ''), created_at) WHERE closed_at IS NULL;
CREATE INDEX execution_failed ON execution (closed_at, name, version) WHERE end_kind = 2;
CREATE INDEX instance_crashing ON instance (kind) WHERE takeovers >= 3;
CREATE INDEX instance_boundary_kind ON instance (kind, boundary_due) WHERE boundary_due IS NOT NULL;
CREATE INDEX instance_pinned ON instance_detail (instance_id) WHERE pin IS NOT NULL;

-- Code that nodes had: seen as a node joins, and as it leaves or is buried.
CREATE TABLE code_seen (
    name        TEXT    NOT NULL,
    version     TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    first_seen  INTEGER NOT NULL,
    first_node  TEXT    NOT NULL,
    last_seen   INTEGER NOT NULL,
    last_node   TEXT    NOT NULL,
    PRIMARY KEY (name, version, fingerprint)
) STRICT, WITHOUT ROWID;
