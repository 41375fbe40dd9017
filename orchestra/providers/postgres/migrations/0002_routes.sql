-- lowest reader: 1
--
-- Activities that the owner of their instance hands out: taken by another node, and reported to the instance.

-- queue and name are the route by which the current try is handed out; owner is the node that has taken it, revision its fence.
-- result and failure say how it has ended there, for the owner of the instance to take note of. An empty failure: its node has
-- died.
ALTER TABLE @activity
    ADD COLUMN name text COLLATE "C",
    ADD COLUMN result bytea,
    ADD COLUMN result_encoding integer,
    ADD COLUMN failure bytea;

CREATE INDEX activity_claim ON @activity (queue, name, started_at, instance_id)
    WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL;
CREATE INDEX activity_owner ON @activity (owner) WHERE owner IS NOT NULL;
