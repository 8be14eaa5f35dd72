-- Tables above or among those that the statement created or changed that have children and a row trigger of this extension;
-- and $1, which it detached from such a table.
WITH RECURSIVE altered(oid) AS (
    SELECT objid FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass
), up(oid) AS (
    SELECT oid FROM altered
    UNION
    SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid
), protected AS (
    -- By what it does: the owner may have given the trigger another name.
    SELECT t.tgrelid, p.proname, t.tgargs, t.tgparentid
    FROM pg_trigger t
    JOIN pg_proc p ON p.oid = t.tgfoid AND p.proname IN ('capture_change', 'refuse_change')
    JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'skill_system'
    JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace <> n.oid
    WHERE t.tgtype & 1 = 1 AND t.tgrelid IN (SELECT oid FROM up)
)
SELECT t.tgrelid, t.proname::text, t.tgargs FROM protected t
WHERE t.tgparentid = 0 AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = t.tgrelid)
UNION ALL
SELECT $1, t.proname::text, t.tgargs FROM protected t JOIN altered a ON a.oid = t.tgrelid WHERE $1 IS NOT NULL
ORDER BY 1, 2
