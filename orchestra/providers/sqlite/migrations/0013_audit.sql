-- The audit is read by time, by subject and by author.

CREATE INDEX operation_at ON operation (at, operation_id);
CREATE INDEX operation_subject ON operation (subject, at, operation_id);
