-- Lists find the instances of one end in the order of their making, and those of a rare kind.

CREATE INDEX instance_status ON instance (status, created_at, instance_id);
CREATE INDEX instance_kind ON instance (kind, status);
