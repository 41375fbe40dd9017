-- The steps of an activity stand in a stream of their own, and go with the activity's row. An activity with steps has a
-- heartbeat, so that all other rows are deleted as before.

CREATE TRIGGER journal_of_activity AFTER DELETE ON activity WHEN OLD.heartbeat IS NOT NULL
BEGIN
    DELETE FROM stream_item
    WHERE instance_id = OLD.instance_id AND stream = 'orchestra:journal/' || OLD.execution || '/' || OLD.event_id;
    DELETE FROM stream
    WHERE instance_id = OLD.instance_id AND stream = 'orchestra:journal/' || OLD.execution || '/' || OLD.event_id;
END;
