-- The hash of the shape that the input of an execution was written with, and the migrations that it passed as the execution opened.

ALTER TABLE execution ADD COLUMN state_shape TEXT;
ALTER TABLE execution ADD COLUMN migrations TEXT;
