-- lowest reader: 1
--
-- What operators control: holds, nudges, boundaries that are due, delayed starts, rewinds and restarts.

ALTER TABLE @instance
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD COLUMN boundary_due bigint,
    ADD COLUMN not_before bigint;
CREATE INDEX instance_boundary ON @instance (boundary_due) WHERE boundary_due IS NOT NULL;

ALTER TABLE @instance_detail
    ADD COLUMN operator_hold bytea,
    ADD COLUMN nudge bytea;

ALTER TABLE @execution
    ADD COLUMN request_id text COLLATE "C",
    ADD COLUMN patches text;

-- No node takes an activity of an instance that an operator holds.
ALTER TABLE @activity ADD COLUMN paused boolean NOT NULL DEFAULT false;
DROP INDEX @activity_claim;
CREATE INDEX activity_claim ON @activity (queue, name, started_at, instance_id)
    WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL AND NOT paused;

-- Messages whose payload no code could decode.
CREATE TABLE @set_aside (
    instance_id  text    COLLATE "C" NOT NULL,
    sequence     bigint  NOT NULL,
    message_id   text    COLLATE "C" NOT NULL,
    sender       text    NOT NULL,
    name         text    COLLATE "C" NOT NULL,
    payload      bytea   NOT NULL,
    encoding     integer NOT NULL,
    sent_at      bigint  NOT NULL,
    traceparent  text,
    reason       text    NOT NULL,
    set_aside_at bigint  NOT NULL,
    PRIMARY KEY (instance_id, sequence)
);
