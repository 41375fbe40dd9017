-- lowest reader: 1
--
-- Requests: messages that wait for an answer. The message stays in the inbox until the write that answers it.

CREATE TABLE @request (
    instance_id     text    COLLATE "C" NOT NULL,
    request_id      text    COLLATE "C" NOT NULL,
    incarnation     text    COLLATE "C" NOT NULL,
    name            text    COLLATE "C" NOT NULL,
    sequence        bigint  NOT NULL,
    asked_at        bigint  NOT NULL,
    answered_at     bigint,
    answer          bytea,
    answer_encoding integer,
    rejection       text,
    PRIMARY KEY (instance_id, request_id)
);

CREATE INDEX request_answered ON @request (answered_at) WHERE answered_at IS NOT NULL;
CREATE INDEX message_request ON @message (instance_id, name, sequence) WHERE kind = 5;
