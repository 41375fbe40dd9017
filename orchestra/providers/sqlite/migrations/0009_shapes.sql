-- The hash of the shape that the input of an execution was written with.

ALTER TABLE execution ADD COLUMN state_shape TEXT;
