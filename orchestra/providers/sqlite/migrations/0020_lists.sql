-- Lists find the instances of one end in the order of their making. Not the open ones: statements
-- about those have indexes of their own, from which a planner without statistics would be drawn.

CREATE INDEX instance_status ON instance (status, created_at, instance_id) WHERE status <> 0;
