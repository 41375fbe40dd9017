-- Activities that the owner of their instance hands out: taken by another node, and reported to the instance.

-- queue and name are the route by which the current try is handed out; owner is the node that has taken it, revision its fence.
ALTER TABLE activity ADD COLUMN name TEXT;

-- How the try has ended there, for the owner of the instance to take note of. An empty failure: its node has died.
ALTER TABLE activity ADD COLUMN result BLOB;
ALTER TABLE activity ADD COLUMN result_encoding INTEGER;
ALTER TABLE activity ADD COLUMN failure BLOB;

CREATE INDEX activity_claim ON activity (queue, name, started_at)
    WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL;
CREATE INDEX activity_owner ON activity (owner) WHERE owner IS NOT NULL;
