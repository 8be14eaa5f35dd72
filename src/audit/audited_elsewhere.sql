-- Table $1 and those below it that have the row trigger with function $2 because of a table above that is not among them, with the name
-- of that one; and those below these.
WITH RECURSIVE tree(oid) AS (
    SELECT $1::oid
    UNION
    SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
), elsewhere(oid, above) AS (
    SELECT i.inhrelid, format('%I.%I', n.nspname, c.relname)
    FROM tree JOIN pg_inherits i ON i.inhrelid = tree.oid
    JOIN pg_trigger g ON g.tgrelid = i.inhparent AND g.tgtype & 1 = 1
    JOIN pg_proc p ON p.oid = g.tgfoid AND p.proname = $2
        AND p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system')
    JOIN pg_class c ON c.oid = i.inhparent
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.inhparent NOT IN (SELECT oid FROM tree)
    UNION
    SELECT i.inhrelid, NULL FROM elsewhere JOIN pg_inherits i ON i.inhparent = elsewhere.oid
)
SELECT oid, above FROM elsewhere
