-- lowest reader: 1
--
-- What holds an instance stands in its row, so that lists and counts of held instances read an index and nothing else. Triggers
-- keep it, so that libraries that do not know of it keep it right, too. They run only as a hold begins, changes or ends.

ALTER TABLE @instance ADD COLUMN hold_kind text;

CREATE FUNCTION @hold_of_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE @instance SET hold_kind = CASE WHEN NOT NEW.held THEN NULL WHEN NEW.paused THEN 'operator' ELSE (
            SELECT replace(convert_from(d.hold, 'UTF8'), '\u0000', '\ufffd')::json ->> 'kind'
            FROM @instance_detail d WHERE d.instance_id = NEW.instance_id) END
        WHERE instance_id = NEW.instance_id;
    RETURN NULL;
END
$$;

CREATE FUNCTION @hold_of_detail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE @instance SET hold_kind = replace(convert_from(NEW.hold, 'UTF8'), '\u0000', '\ufffd')::json ->> 'kind'
        WHERE instance_id = NEW.instance_id AND held AND NOT paused;
    RETURN NULL;
END
$$;

CREATE TRIGGER hold_of_changed AFTER UPDATE OF held, paused ON @instance FOR EACH ROW
    WHEN (OLD.held <> NEW.held OR OLD.paused <> NEW.paused) EXECUTE FUNCTION @hold_of_changed();
CREATE TRIGGER hold_of_detail AFTER UPDATE OF hold ON @instance_detail FOR EACH ROW
    WHEN (OLD.hold IS DISTINCT FROM NEW.hold) EXECUTE FUNCTION @hold_of_detail();

UPDATE @instance i SET hold_kind = CASE WHEN i.paused THEN 'operator'
        ELSE replace(convert_from(d.hold, 'UTF8'), '\u0000', '\ufffd')::json ->> 'kind' END
    FROM @instance_detail d WHERE i.held AND d.instance_id = i.instance_id;

DROP INDEX @instance_held;
CREATE INDEX instance_held ON @instance (kind, hold_kind) WHERE held;
CREATE INDEX instance_hold ON @instance (created_at, instance_id, hold_kind) WHERE held;

-- With the kind, so that the few ended instances of a rare name are found without a look at the others.
DROP INDEX @instance_status;
CREATE INDEX instance_status ON @instance (status, created_at, instance_id) INCLUDE (kind) WHERE status <> 0;
