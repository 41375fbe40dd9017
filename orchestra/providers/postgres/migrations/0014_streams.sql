-- lowest reader: 1
--
-- What instances publish: their streams, and the items. An item's offset is made under the lock of the instance.

CREATE TABLE @stream (
    instance_id  text COLLATE "C" NOT NULL,
    stream       text COLLATE "C" NOT NULL,
    incarnation  text   NOT NULL,
    first_offset bigint NOT NULL,
    last_offset  bigint NOT NULL,
    bytes        bigint NOT NULL,
    first_at     bigint NOT NULL,
    PRIMARY KEY (instance_id, stream)
) WITH (fillfactor = 70);

CREATE TABLE @stream_item (
    instance_id    text COLLATE "C" NOT NULL,
    stream         text COLLATE "C" NOT NULL,
    item_offset    bigint NOT NULL,
    payload        bytea  NOT NULL,
    encoding       bigint NOT NULL,
    at             bigint NOT NULL,
    execution      bigint NOT NULL,
    event_id       bigint,
    attempt        bigint,
    attempt_number bigint NOT NULL,
    PRIMARY KEY (instance_id, stream, item_offset)
);
