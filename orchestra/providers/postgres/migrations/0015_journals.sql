-- lowest reader: 1
--
-- The steps of an activity stand in a stream of their own, and go with the activity's row. An activity with steps has a
-- heartbeat, so that all other rows are deleted as before.

CREATE FUNCTION @journal_of_activity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM @stream_item
    WHERE instance_id = OLD.instance_id AND stream = 'orchestra:journal/' || OLD.execution || '/' || OLD.event_id;
    DELETE FROM @stream
    WHERE instance_id = OLD.instance_id AND stream = 'orchestra:journal/' || OLD.execution || '/' || OLD.event_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER journal_of_activity AFTER DELETE ON @activity FOR EACH ROW
    WHEN (OLD.heartbeat IS NOT NULL) EXECUTE FUNCTION @journal_of_activity();
