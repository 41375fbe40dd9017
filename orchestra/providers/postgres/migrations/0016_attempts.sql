-- lowest reader: 1
--
-- The last item of an attempt: a change that was committed, and comes once more, stores nothing twice.

CREATE INDEX stream_item_attempt ON @stream_item (instance_id, execution, event_id, attempt, attempt_number)
    WHERE event_id IS NOT NULL;
