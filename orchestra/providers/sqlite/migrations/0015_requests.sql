-- Requests: messages that wait for an answer. The message stays in the inbox until the write that answers it.

CREATE TABLE request (
    instance_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    name TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,
    answered_at INTEGER,
    answer BLOB,
    answer_encoding INTEGER,
    rejection TEXT,
    PRIMARY KEY (instance_id, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_answered ON request (answered_at) WHERE answered_at IS NOT NULL;
CREATE INDEX message_request ON message (instance_id, name, sequence) WHERE kind = 5;
