-- lowest reader: 1
--
-- The first schema. Columns that nothing reads yet are reserved, so that later features need no rewrite of large tables.
-- Instants are microseconds UTC. The instance id comes first in every key. Ids compare by code point (COLLATE "C") on every
-- server, since rows are locked in the order of their ids. An @ stands before each name that belongs to the store's schema.

CREATE TABLE @kind (
    kind_id  integer  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue    text     COLLATE "C" NOT NULL,
    name     text     COLLATE "C" NOT NULL,
    version  text     COLLATE "C" NOT NULL,
    format   integer  NOT NULL,
    floating boolean  NOT NULL,
    UNIQUE (name, version, queue, format, floating)
);

-- The hot row: what every write changes. due_at and news_for are what claims and news are indexed by. They stand still while an
-- owner writes step after step, so that such an update touches no index (HOT) and leaves nothing behind but a row version on
-- the same page, which the next one clears away: hence the free space (fillfactor), and the eager vacuum for the rest.
CREATE TABLE @instance (
    instance_id    text     COLLATE "C" NOT NULL PRIMARY KEY,
    incarnation    text     COLLATE "C" NOT NULL,
    kind           integer  NOT NULL,
    revision       bigint   NOT NULL,
    owner          text     COLLATE "C",
    wake_at        bigint,
    status         smallint NOT NULL,
    held           boolean  NOT NULL,
    inbox_seq      bigint   NOT NULL,
    seen_seq       bigint   NOT NULL,
    execution      bigint   NOT NULL,
    opened         boolean  NOT NULL,
    takeovers      integer  NOT NULL,
    priority       integer  NOT NULL DEFAULT 0,
    history_events bigint   NOT NULL,
    history_bytes  bigint   NOT NULL,
    cancel_at      bigint,
    cancel_reason  text,
    cancel_by      text,
    cancel_seq     bigint,
    cancel_terminate boolean NOT NULL DEFAULT false,
    created_at     bigint   NOT NULL,
    updated_at     bigint   NOT NULL,
    summary        bytea    NOT NULL,
    expires_at     bigint,
    due_at         bigint   GENERATED ALWAYS AS (CASE WHEN owner IS NULL AND status = 0 AND NOT held THEN wake_at END) STORED,
    news_for       text     COLLATE "C" GENERATED ALWAYS AS (CASE WHEN inbox_seq > seen_seq THEN owner END) STORED
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.05);

-- Claims probe per kind (protocol rule 24); parked and foreign rows cost nothing.
CREATE INDEX instance_claim ON @instance (kind, due_at, instance_id) WHERE due_at IS NOT NULL;
CREATE INDEX instance_owner ON @instance (owner, instance_id) WHERE owner IS NOT NULL;
CREATE INDEX instance_news ON @instance (news_for) WHERE news_for IS NOT NULL;
CREATE INDEX instance_held ON @instance (kind) WHERE held;
-- Only what is to go stands in it: to find that there is nothing costs one look.
CREATE INDEX instance_expiry ON @instance (expires_at, instance_id) WHERE expires_at IS NOT NULL;
CREATE INDEX instance_created ON @instance (created_at, instance_id);

-- The cold row: written at the start, and by rare events.
CREATE TABLE @instance_detail (
    instance_id            text COLLATE "C" NOT NULL PRIMARY KEY,
    request_id             text COLLATE "C" NOT NULL,
    created_by             text NOT NULL,
    custom_status          bytea,
    custom_status_encoding integer,
    hold                   bytea,
    pin                    bytea,
    unread_names           text[],
    unread_counts          bigint[],
    parent_id              text COLLATE "C",
    parent_incarnation     text COLLATE "C",
    parent_execution       bigint,
    parent_event           bigint,
    on_parent_close        smallint NOT NULL DEFAULT 0,
    root_id                text COLLATE "C",
    boundary_due           bigint,
    deadline               bigint,
    not_before             bigint,
    schedule_id            text COLLATE "C",
    schedule_tick          bigint,
    traceparent            text
);

CREATE INDEX instance_parent ON @instance_detail (parent_id, parent_execution) WHERE parent_id IS NOT NULL;

CREATE TABLE @label (
    instance_id text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    value       text COLLATE "C" NOT NULL,
    PRIMARY KEY (instance_id, key)
);

CREATE INDEX label_value ON @label (key, value);

CREATE TABLE @execution (
    instance_id     text    COLLATE "C" NOT NULL,
    execution       bigint  NOT NULL,
    name            text    COLLATE "C" NOT NULL,
    version         text    COLLATE "C" NOT NULL,
    version_key     text    COLLATE "C" NOT NULL,
    resolved_how    text    NOT NULL,
    resolved_by     text    NOT NULL,
    policy_revision bigint  NOT NULL,
    state           bytea   NOT NULL,
    state_encoding  integer NOT NULL,
    state_version   text    COLLATE "C",
    created_at      bigint  NOT NULL,
    format          integer,
    fingerprint     text    COLLATE "C",
    opened_at       bigint,
    closed_at       bigint,
    end_kind        smallint,
    output          bytea,
    output_encoding integer,
    error           bytea,
    event_count     bigint  NOT NULL,
    byte_count      bigint  NOT NULL,
    migration_path  bytea,
    traceparent     text,
    PRIMARY KEY (instance_id, execution)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE @event (
    instance_id text     COLLATE "C" NOT NULL,
    execution   bigint   NOT NULL,
    event_id    bigint   NOT NULL,
    kind        smallint NOT NULL,
    at          bigint   NOT NULL,
    format      integer  NOT NULL,
    envelope    bytea    NOT NULL,
    payload     bytea,
    encoding    integer,
    PRIMARY KEY (instance_id, execution, event_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE @message (
    instance_id text     COLLATE "C" NOT NULL,
    sequence    bigint   NOT NULL,
    message_id  text     COLLATE "C" NOT NULL,
    sender      text     NOT NULL,
    kind        smallint NOT NULL DEFAULT 0,
    source      bigint   NOT NULL DEFAULT 0,
    name        text     COLLATE "C" NOT NULL,
    payload     bytea    NOT NULL,
    encoding    integer  NOT NULL,
    sent_at     bigint   NOT NULL,
    expires_at  bigint,
    traceparent text,
    PRIMARY KEY (instance_id, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- Where kind is not 0, it says how a child has ended, and source is the parent's event that asked for the child. The ids of sent
-- events are their senders' words: what the store itself puts into an inbox must not meet them.
CREATE UNIQUE INDEX message_identity ON @message (instance_id, message_id, kind);
CREATE INDEX message_report ON @message (instance_id, source) WHERE kind <> 0;

-- A removed message is remembered for a window, so that its sender may ask again (protocol rule 21).
CREATE TABLE @tombstone (
    instance_id text   COLLATE "C" NOT NULL,
    message_id  text   COLLATE "C" NOT NULL,
    sequence    bigint NOT NULL,
    removed_at  bigint NOT NULL,
    PRIMARY KEY (instance_id, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX tombstone_age ON @tombstone (removed_at);

CREATE TABLE @activity (
    instance_id        text    COLLATE "C" NOT NULL,
    execution          bigint  NOT NULL,
    event_id           bigint  NOT NULL,
    attempt            bigint  NOT NULL,
    due                bigint,
    started_at         bigint  NOT NULL,
    attempts           bytea   NOT NULL,
    heartbeat          bytea,
    heartbeat_encoding integer,
    queue              text    COLLATE "C",
    owner              text    COLLATE "C",
    revision           bigint  NOT NULL DEFAULT 0,
    deadline           bigint,
    priority           integer NOT NULL DEFAULT 0,
    traceparent        text,
    PRIMARY KEY (instance_id, execution, event_id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- pulse: the advisory lock that the node's own connection holds on this start of the server, while it lives. A hint.
CREATE TABLE @node (
    node_id      text    COLLATE "C" NOT NULL PRIMARY KEY,
    host         text    NOT NULL,
    boot_id      text    NOT NULL,
    pid          bigint  NOT NULL,
    library      text    NOT NULL,
    abilities    bytea   NOT NULL,
    lease        bigint  NOT NULL,
    started_at   bigint  NOT NULL,
    renewed_at   bigint  NOT NULL,
    renewals     bigint  NOT NULL,
    dead         boolean NOT NULL,
    load         bigint  NOT NULL DEFAULT 0,
    pulse        bigint,
    pulse_server bigint
) WITH (fillfactor = 50);

CREATE TABLE @capability (
    node_id     text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    version     text COLLATE "C" NOT NULL,
    fingerprint text NOT NULL,
    PRIMARY KEY (node_id, name, version)
);

CREATE TABLE @node_activity (
    node_id text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    PRIMARY KEY (node_id, name)
);

CREATE TABLE @policy (
    name     text   COLLATE "C" NOT NULL PRIMARY KEY,
    revision bigint NOT NULL,
    value    text   NOT NULL,
    set_by   text   NOT NULL,
    reason   text   NOT NULL,
    set_at   bigint NOT NULL
);

-- How long instances of a name are kept after their end. The deadline of each stands in its row, so that whoever ends an
-- instance and whoever deletes it needs no code of the orchestration.
CREATE TABLE @expiry (
    name  text   COLLATE "C" NOT NULL PRIMARY KEY,
    after bigint NOT NULL
);

-- What operators did: the audit.
CREATE TABLE @operation (
    operation_id text   NOT NULL PRIMARY KEY,
    at           bigint NOT NULL,
    actor        text   NOT NULL,
    action       text   NOT NULL,
    subject      text   NOT NULL,
    detail       bytea  NOT NULL
);

CREATE INDEX operation_at ON @operation (at);
