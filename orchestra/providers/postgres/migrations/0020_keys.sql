-- lowest reader: 1
-- The indexes of sealed values stood here. A store gets them once a pipeline of payloads opens it (orchestra/providers/postgres/keys.py): each
-- costs every write a little.
SELECT 1;
