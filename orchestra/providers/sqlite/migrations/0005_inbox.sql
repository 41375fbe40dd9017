-- Long inboxes: the next event of a name is found without looking at the others.

CREATE INDEX message_name ON message (instance_id, name, sequence) WHERE kind = 0;
