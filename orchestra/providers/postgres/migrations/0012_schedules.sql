-- lowest reader: 1
--
-- Schedules, and what became of their slots. The index holds those alone that are due at some time.

CREATE TABLE @schedule (
    schedule_id text    COLLATE "C" NOT NULL PRIMARY KEY,
    incarnation text    COLLATE "C" NOT NULL,
    revision    bigint  NOT NULL,
    definition  bytea   NOT NULL,
    state       bytea   NOT NULL,
    value       bytea   NOT NULL,
    value_encoding bigint NOT NULL,
    next_at     bigint,
    paused      boolean NOT NULL,
    level       bigint  NOT NULL,
    declared    bigint,
    declared_at bigint,
    edition     bigint  NOT NULL,
    created_at  bigint  NOT NULL,
    updated_at  bigint  NOT NULL,
    changed_by  text    COLLATE "C" NOT NULL,
    request_id  text    COLLATE "C" NOT NULL
);
CREATE INDEX schedule_due ON @schedule (next_at, schedule_id) WHERE next_at IS NOT NULL;

CREATE TABLE @schedule_slot (
    schedule_id text    COLLATE "C" NOT NULL,
    slot        bigint  NOT NULL,
    cause       text    COLLATE "C" NOT NULL,
    outcome     text    COLLATE "C" NOT NULL,
    reason      text    COLLATE "C" NOT NULL,
    instance_id text    COLLATE "C",
    at          bigint  NOT NULL,
    follows     boolean NOT NULL,
    first_slot  bigint,
    slot_count  bigint  NOT NULL,
    more        boolean NOT NULL,
    late        boolean NOT NULL,
    ended       text    COLLATE "C",
    PRIMARY KEY (schedule_id, slot, cause)
);
CREATE INDEX schedule_slot_followed ON @schedule_slot (schedule_id, slot) WHERE follows;

CREATE INDEX instance_schedule ON @instance_detail (schedule_id, schedule_tick) WHERE schedule_id IS NOT NULL;
