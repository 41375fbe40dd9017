-- Children: whose end waits for whom, and what becomes of them when their parent's execution closes.

-- Where message.kind is not 0, it says how a child has ended, and source is the parent's event that asked for the child.
ALTER TABLE message ADD COLUMN source INTEGER NOT NULL DEFAULT 0;

-- The ids of sent events are their senders' words. What the store itself puts into an inbox must not meet them.
DROP INDEX message_identity;
CREATE UNIQUE INDEX message_identity ON message (instance_id, message_id, kind);
CREATE INDEX message_report ON message (instance_id, source) WHERE kind <> 0;

-- Of a cancel mark: whether the next owner ends the instance without running code.
ALTER TABLE instance ADD COLUMN cancel_terminate INTEGER NOT NULL DEFAULT 0;

ALTER TABLE instance_detail ADD COLUMN on_parent_close INTEGER NOT NULL DEFAULT 0;
CREATE INDEX instance_parent ON instance_detail (parent_id, parent_execution) WHERE parent_id IS NOT NULL;
