-- Which keys sealed values need: indexes of the sealed values alone, by key and instance. A store without sealed values has nothing in
-- them. A sealed value begins with the byte 255, and has the id of its key in bytes 5 to 20.

CREATE INDEX key_execution_state_open ON execution (substr(state, 6, 16), instance_id)
    WHERE substr(state, 1, 1) = x'ff' AND closed_at IS NULL;
CREATE INDEX key_message_payload ON message (substr(payload, 6, 16), instance_id)
    WHERE substr(payload, 1, 1) = x'ff';
CREATE INDEX key_activity_attempts ON activity (substr(attempts, 6, 16), instance_id)
    WHERE substr(attempts, 1, 1) = x'ff';
CREATE INDEX key_activity_heartbeat ON activity (substr(heartbeat, 6, 16), instance_id)
    WHERE substr(heartbeat, 1, 1) = x'ff';
CREATE INDEX key_activity_result ON activity (substr(result, 6, 16), instance_id)
    WHERE substr(result, 1, 1) = x'ff';
CREATE INDEX key_activity_failure ON activity (substr(failure, 6, 16), instance_id)
    WHERE substr(failure, 1, 1) = x'ff';
CREATE INDEX key_schedule_value ON schedule (substr(value, 6, 16), schedule_id)
    WHERE substr(value, 1, 1) = x'ff';
CREATE INDEX key_event_payload ON event (substr(payload, 6, 16), instance_id, execution)
    WHERE substr(payload, 1, 1) = x'ff';
CREATE INDEX key_event_envelope ON event (substr(envelope, 6, 16), instance_id, execution)
    WHERE substr(envelope, 1, 1) = x'ff';
CREATE INDEX key_execution_state_closed ON execution (substr(state, 6, 16), instance_id)
    WHERE substr(state, 1, 1) = x'ff' AND closed_at IS NOT NULL;
CREATE INDEX key_execution_output ON execution (substr(output, 6, 16), instance_id)
    WHERE substr(output, 1, 1) = x'ff';
CREATE INDEX key_execution_error ON execution (substr(error, 6, 16), instance_id)
    WHERE substr(error, 1, 1) = x'ff';
CREATE INDEX key_instance_detail_custom_status ON instance_detail (substr(custom_status, 6, 16), instance_id)
    WHERE substr(custom_status, 1, 1) = x'ff';
CREATE INDEX key_set_aside_payload ON set_aside (substr(payload, 6, 16), instance_id)
    WHERE substr(payload, 1, 1) = x'ff';
CREATE INDEX key_request_answer ON request (substr(answer, 6, 16), instance_id)
    WHERE substr(answer, 1, 1) = x'ff';
CREATE INDEX key_stream_item_payload ON stream_item (substr(payload, 6, 16), instance_id)
    WHERE substr(payload, 1, 1) = x'ff';
