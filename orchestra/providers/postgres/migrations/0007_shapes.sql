-- lowest reader: 1
--
-- The hash of the shape that the input of an execution was written with.

ALTER TABLE @execution ADD COLUMN state_shape text;
