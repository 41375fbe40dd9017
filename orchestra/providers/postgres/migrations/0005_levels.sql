-- lowest reader: 1
--
-- Libraries of different ages: what each node reads and writes, at which level the store is written, and what a library must
-- read to go on with an instance. From here on lowest_reader is a level, and no longer the number of a schema.

ALTER TABLE @kind ADD COLUMN level integer NOT NULL DEFAULT 1;
ALTER TABLE @kind DROP CONSTRAINT kind_name_version_queue_format_floating_key;
ALTER TABLE @kind ADD UNIQUE (name, version, queue, format, floating, level);

ALTER TABLE @node
    ADD COLUMN reads integer NOT NULL DEFAULT 1,
    ADD COLUMN writes integer NOT NULL DEFAULT 1;

INSERT INTO @meta (key, value) VALUES ('write_level', '1');
DELETE FROM @meta WHERE key = 'lowest_reader';
