-- lowest reader: 1
--
-- The audit is read by time and by subject.

DROP INDEX @operation_at;
CREATE INDEX operation_at ON @operation (at, operation_id);
CREATE INDEX operation_subject ON @operation (subject, at, operation_id);
