-- lowest reader: 1
--
-- The former policies of a name: a change moves the row that stood in the table policy to this one.

CREATE TABLE @policy_history (
    name     text   COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    value    text   NOT NULL,
    set_by   text   NOT NULL,
    reason   text   NOT NULL,
    set_at   bigint NOT NULL,
    PRIMARY KEY (name, revision)
);
