-- lowest reader: 1
--
-- The rewind that began an execution: the one whose state it has again, and what it undid.

ALTER TABLE @execution ADD COLUMN rewind bytea;
