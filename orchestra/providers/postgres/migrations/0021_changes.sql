-- lowest reader: 1
--
-- Lists by the last change. changed_at is updated_at while no node owns the instance, and NULL while one does. An index on updated_at
-- itself would cost each step of an owner an entry in every index of the table (no HOT update). Lists sort the owned instances, which
-- are few. The server writes the table anew to add the column: 14 s for 1,000,000 instances, in which nothing else writes to it.

ALTER TABLE @instance ADD COLUMN changed_at bigint GENERATED ALWAYS AS (CASE WHEN owner IS NULL THEN updated_at END) STORED;
CREATE INDEX instance_changed ON @instance (changed_at, instance_id) WHERE changed_at IS NOT NULL;
