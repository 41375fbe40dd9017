-- lowest reader: 1
--
-- How many instances there are of each kind, status and hold. Triggers keep the numbers, so that libraries that do not know of
-- them keep them right, too; a count then costs as many rows as there are kinds. The triggers only add rows of changes: nodes
-- never wait for each other's numbers. A node's sweep adds these rows up, and a number is the sum of both tables.

CREATE TABLE @tally (
    kind   integer  NOT NULL,
    status smallint NOT NULL,
    held   boolean  NOT NULL,
    number bigint   NOT NULL,
    PRIMARY KEY (kind, status, held)
) WITH (fillfactor = 50);

CREATE TABLE @tally_change (
    kind   integer  NOT NULL,
    status smallint NOT NULL,
    held   boolean  NOT NULL,
    number bigint   NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE FUNCTION @tally_of_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @tally_change (kind, status, held, number)
        SELECT m.kind, m.status, m.held, count(*) FROM made m GROUP BY m.kind, m.status, m.held;
    RETURN NULL;
END
$$;

CREATE FUNCTION @tally_of_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @tally_change (kind, status, held, number)
        VALUES (OLD.kind, OLD.status, OLD.held, -1), (NEW.kind, NEW.status, NEW.held, 1);
    RETURN NULL;
END
$$;

CREATE FUNCTION @tally_of_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @tally_change (kind, status, held, number)
        SELECT g.kind, g.status, g.held, -count(*) FROM gone g GROUP BY g.kind, g.status, g.held;
    RETURN NULL;
END
$$;

CREATE TRIGGER tally_of_new AFTER INSERT ON @instance
    REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION @tally_of_new();
-- For each row: a condition keeps it away from the steps of instances that go on, which only a trigger for rows can have.
CREATE TRIGGER tally_of_changed AFTER UPDATE OF kind, status, held ON @instance FOR EACH ROW
    WHEN (OLD.kind <> NEW.kind OR OLD.status <> NEW.status OR OLD.held <> NEW.held) EXECUTE FUNCTION @tally_of_changed();
CREATE TRIGGER tally_of_deleted AFTER DELETE ON @instance
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION @tally_of_deleted();

-- The triggers have locked the table until this is committed: nothing changes between the count and the first change.
INSERT INTO @tally (kind, status, held, number)
    SELECT kind, status, held, count(*) FROM @instance GROUP BY kind, status, held;

-- For reports of versions. The groups of open executions: one version, one code, one way of choosing it, the same marks. Its
-- condition is no plain one, so that no plan of a write takes this index for the primary key.
CREATE INDEX execution_open ON @execution
    (name, version, (coalesce(fingerprint, '')), resolved_how, (coalesce(patches, '')), created_at)
    WHERE coalesce(closed_at, 0) = 0;
CREATE INDEX execution_failed ON @execution (closed_at, name, version) WHERE end_kind = 2;
CREATE INDEX instance_crashing ON @instance (kind) WHERE takeovers >= 3;
CREATE INDEX instance_boundary_kind ON @instance (kind, boundary_due) WHERE boundary_due IS NOT NULL;
CREATE INDEX instance_pinned ON @instance_detail (instance_id) WHERE pin IS NOT NULL;

-- Code that nodes had: seen as a node joins, and as it leaves or is buried.
CREATE TABLE @code_seen (
    name        text   COLLATE "C" NOT NULL,
    version     text   COLLATE "C" NOT NULL,
    fingerprint text   COLLATE "C" NOT NULL,
    first_seen  bigint NOT NULL,
    first_node  text   NOT NULL,
    last_seen   bigint NOT NULL,
    last_node   text   NOT NULL,
    PRIMARY KEY (name, version, fingerprint)
);
