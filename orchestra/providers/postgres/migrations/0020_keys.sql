-- lowest reader: 1
-- Which keys sealed values need: indexes of the sealed values alone, by key and instance. A store without sealed values has nothing in
-- them. A sealed value begins with the byte 255, and has the id of its key in bytes 5 to 20.

CREATE INDEX key_execution_state_open ON @execution (substring(state from 6 for 16), instance_id)
    WHERE substring(state from 1 for 1) = '\xff'::bytea AND closed_at IS NULL;
CREATE INDEX key_message_payload ON @message (substring(payload from 6 for 16), instance_id)
    WHERE substring(payload from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_activity_attempts ON @activity (substring(attempts from 6 for 16), instance_id)
    WHERE substring(attempts from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_activity_heartbeat ON @activity (substring(heartbeat from 6 for 16), instance_id)
    WHERE substring(heartbeat from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_activity_result ON @activity (substring(result from 6 for 16), instance_id)
    WHERE substring(result from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_activity_failure ON @activity (substring(failure from 6 for 16), instance_id)
    WHERE substring(failure from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_schedule_value ON @schedule (substring(value from 6 for 16), schedule_id)
    WHERE substring(value from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_event_payload ON @event (substring(payload from 6 for 16), instance_id, execution)
    WHERE substring(payload from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_event_envelope ON @event (substring(envelope from 6 for 16), instance_id, execution)
    WHERE substring(envelope from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_execution_state_closed ON @execution (substring(state from 6 for 16), instance_id)
    WHERE substring(state from 1 for 1) = '\xff'::bytea AND closed_at IS NOT NULL;
CREATE INDEX key_execution_output ON @execution (substring(output from 6 for 16), instance_id)
    WHERE substring(output from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_execution_error ON @execution (substring(error from 6 for 16), instance_id)
    WHERE substring(error from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_instance_detail_custom_status ON @instance_detail (substring(custom_status from 6 for 16), instance_id)
    WHERE substring(custom_status from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_set_aside_payload ON @set_aside (substring(payload from 6 for 16), instance_id)
    WHERE substring(payload from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_request_answer ON @request (substring(answer from 6 for 16), instance_id)
    WHERE substring(answer from 1 for 1) = '\xff'::bytea;
CREATE INDEX key_stream_item_payload ON @stream_item (substring(payload from 6 for 16), instance_id)
    WHERE substring(payload from 1 for 1) = '\xff'::bytea;
