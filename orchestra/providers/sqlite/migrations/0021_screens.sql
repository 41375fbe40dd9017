-- What holds an instance stands in its row, so that lists and counts of held instances read an index and nothing else. Triggers
-- keep it, so that libraries that do not know of it keep it right, too. They run only as a hold begins, changes or ends.

ALTER TABLE instance ADD COLUMN hold_kind TEXT;

UPDATE instance SET hold_kind = CASE WHEN paused = 1 THEN 'operator' ELSE (
        SELECT json_extract(CAST(d.hold AS TEXT), '$.kind') FROM instance_detail d
        WHERE d.instance_id = instance.instance_id AND json_valid(CAST(d.hold AS TEXT))) END
    WHERE held = 1;

CREATE TRIGGER hold_of_changed AFTER UPDATE OF held, paused ON instance
WHEN old.held <> new.held OR old.paused <> new.paused BEGIN
    UPDATE instance SET hold_kind = CASE WHEN new.held = 0 THEN NULL WHEN new.paused = 1 THEN 'operator' ELSE (
            SELECT json_extract(CAST(d.hold AS TEXT), '$.kind') FROM instance_detail d
            WHERE d.instance_id = new.instance_id AND json_valid(CAST(d.hold AS TEXT))) END
        WHERE instance_id = new.instance_id;
END;

CREATE TRIGGER hold_of_detail AFTER UPDATE OF hold ON instance_detail WHEN old.hold IS NOT new.hold BEGIN
    UPDATE instance SET hold_kind = (
            SELECT json_extract(CAST(new.hold AS TEXT), '$.kind') WHERE json_valid(CAST(new.hold AS TEXT)))
        WHERE instance_id = new.instance_id AND held = 1 AND paused = 0;
END;

-- Each index has all columns that its readers need, also those of its own condition: SQLite would read the row for them.
DROP INDEX instance_held;
CREATE INDEX instance_held ON instance (kind, hold_kind, held) WHERE held = 1;
CREATE INDEX instance_hold ON instance (created_at, instance_id, hold_kind, held) WHERE held = 1;
DROP INDEX execution_failed;
CREATE INDEX execution_failed ON execution (closed_at, name, version, end_kind) WHERE end_kind = 2;

-- Lists by the last change. An instance that a node owns is not in it, and neither is one that has not begun: a step costs the
-- index nothing, and those are found otherwise.
CREATE INDEX instance_changed ON instance (updated_at, instance_id) WHERE owner IS NULL AND (opened = 1 OR status <> 0);

-- With the kind, so that the few ended instances of a rare name are found without a look at the others.
DROP INDEX instance_status;
CREATE INDEX instance_status ON instance (status, created_at, instance_id, kind) WHERE status <> 0;
