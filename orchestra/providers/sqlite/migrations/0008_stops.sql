-- The stop mark of an activity that is handed out: its instance has cancelled it, and waits for its end.

ALTER TABLE activity ADD COLUMN stopping INTEGER NOT NULL DEFAULT 0;
