-- lowest reader: 1
--
-- Lists find the instances of one end in the order of their making.

CREATE INDEX instance_status ON @instance (status, created_at, instance_id) WHERE status <> 0;
