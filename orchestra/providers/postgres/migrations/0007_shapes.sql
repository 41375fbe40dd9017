-- lowest reader: 1
--
-- The hash of the shape that the input of an execution was written with, and the migrations that it passed as the execution opened.

ALTER TABLE @execution ADD COLUMN state_shape text;
ALTER TABLE @execution ADD COLUMN migrations text;
