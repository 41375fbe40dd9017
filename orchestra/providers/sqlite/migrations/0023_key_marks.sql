-- A cheaper condition for the indexes of keys: a write evaluates each of them, a delete too. The encoding number stands beside most values, and
-- says whether they are sealed. So no large value is read for an index. The others begin with the byte 255 if they are sealed, and so just when
-- they are not less than that byte.

DROP INDEX key_execution_state_open;
DROP INDEX key_message_payload;
DROP INDEX key_activity_attempts;
DROP INDEX key_activity_heartbeat;
DROP INDEX key_activity_result;
DROP INDEX key_activity_failure;
DROP INDEX key_schedule_value;
DROP INDEX key_event_payload;
DROP INDEX key_event_envelope;
DROP INDEX key_execution_state_closed;
DROP INDEX key_execution_output;
DROP INDEX key_execution_error;
DROP INDEX key_instance_detail_custom_status;
DROP INDEX key_set_aside_payload;
DROP INDEX key_request_answer;
DROP INDEX key_stream_item_payload;

CREATE INDEX key_execution_state_open ON execution (substr(state, 6, 16), instance_id)
    WHERE state_encoding = 2 AND state >= x'ff' AND closed_at IS NULL;
CREATE INDEX key_message_payload ON message (substr(payload, 6, 16), instance_id)
    WHERE encoding = 2 AND payload >= x'ff';
CREATE INDEX key_activity_attempts ON activity (substr(attempts, 6, 16), instance_id)
    WHERE attempts >= x'ff';
CREATE INDEX key_activity_heartbeat ON activity (substr(heartbeat, 6, 16), instance_id)
    WHERE heartbeat_encoding = 2 AND heartbeat >= x'ff';
CREATE INDEX key_activity_result ON activity (substr(result, 6, 16), instance_id)
    WHERE result_encoding = 2 AND result >= x'ff';
CREATE INDEX key_activity_failure ON activity (substr(failure, 6, 16), instance_id)
    WHERE failure >= x'ff';
CREATE INDEX key_schedule_value ON schedule (substr(value, 6, 16), schedule_id)
    WHERE value_encoding = 2 AND value >= x'ff';
CREATE INDEX key_event_payload ON event (substr(payload, 6, 16), instance_id, execution)
    WHERE encoding = 2 AND payload >= x'ff';
CREATE INDEX key_event_envelope ON event (substr(envelope, 6, 16), instance_id, execution)
    WHERE envelope >= x'ff';
CREATE INDEX key_execution_state_closed ON execution (substr(state, 6, 16), instance_id)
    WHERE state_encoding = 2 AND state >= x'ff' AND closed_at IS NOT NULL;
CREATE INDEX key_execution_output ON execution (substr(output, 6, 16), instance_id)
    WHERE output_encoding = 2 AND output >= x'ff';
CREATE INDEX key_execution_error ON execution (substr(error, 6, 16), instance_id)
    WHERE error >= x'ff';
CREATE INDEX key_instance_detail_custom_status ON instance_detail (substr(custom_status, 6, 16), instance_id)
    WHERE custom_status_encoding = 2 AND custom_status >= x'ff';
CREATE INDEX key_set_aside_payload ON set_aside (substr(payload, 6, 16), instance_id)
    WHERE encoding = 2 AND payload >= x'ff';
CREATE INDEX key_request_answer ON request (substr(answer, 6, 16), instance_id)
    WHERE answer_encoding = 2 AND answer >= x'ff';
CREATE INDEX key_stream_item_payload ON stream_item (substr(payload, 6, 16), instance_id)
    WHERE encoding = 2 AND payload >= x'ff';
