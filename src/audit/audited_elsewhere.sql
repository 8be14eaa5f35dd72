-- Table $1 and those below it that have the row trigger $2 because of a table above that is not among them, with the name of that one;
-- and those below these.
WITH RECURSIVE tree(oid) AS (
    SELECT $1::oid
    UNION
    SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
), elsewhere(oid, above) AS (
    SELECT i.inhrelid, format('%I.%I', n.nspname, c.relname)
    FROM tree JOIN pg_inherits i ON i.inhrelid = tree.oid
    JOIN pg_trigger g ON g.tgrelid = i.inhparent AND g.tgname = $2
    JOIN pg_class c ON c.oid = i.inhparent
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.inhparent NOT IN (SELECT oid FROM tree)
    UNION
    SELECT i.inhrelid, NULL FROM elsewhere JOIN pg_inherits i ON i.inhparent = elsewhere.oid
)
SELECT oid, above FROM elsewhere
