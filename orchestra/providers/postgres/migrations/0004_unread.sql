-- lowest reader: 1
--
-- Bounds of an inbox: the most events that may be unread, and the most bytes of payloads. NULL: not counted yet.

ALTER TABLE @instance ADD COLUMN most_unread bigint;
ALTER TABLE @instance ADD COLUMN most_unread_bytes bigint;
