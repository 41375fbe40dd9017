-- lowest reader: 1
--
-- Libraries of different ages: what each node reads and writes, at which level the store is written, and what a library must
-- read to go on with an instance. From here on lowest_reader is a level, and no longer the number of a schema.

CREATE TABLE kind_with_level (
    kind_id  INTEGER PRIMARY KEY,
    queue    TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    version  TEXT    NOT NULL,
    format   INTEGER NOT NULL,
    floating INTEGER NOT NULL,
    level    INTEGER NOT NULL,
    UNIQUE (name, version, queue, format, floating, level)
) STRICT;
INSERT INTO kind_with_level (kind_id, queue, name, version, format, floating, level)
    SELECT kind_id, queue, name, version, format, floating, 1 FROM kind;
DROP TABLE kind;
ALTER TABLE kind_with_level RENAME TO kind;

ALTER TABLE node ADD COLUMN reads INTEGER NOT NULL DEFAULT 1;
ALTER TABLE node ADD COLUMN writes INTEGER NOT NULL DEFAULT 1;

INSERT INTO meta (key, value) VALUES ('write_level', '1');
DELETE FROM meta WHERE key = 'lowest_reader';
