-- Tables above or among those that the statement created or changed that have children and a row trigger of this extension;
-- and $1, which it detached from such a table.
WITH RECURSIVE altered(oid) AS (
    SELECT objid FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass
), up(oid) AS (
    SELECT oid FROM altered
    UNION
    SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid
), protected AS (
    SELECT t.tgrelid, t.tgname, t.tgargs, t.tgparentid
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgname IN ('skill_system_audit', 'skill_system_no_change')
        AND p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system')
        AND t.tgrelid IN (SELECT oid FROM up)
)
SELECT t.tgrelid, t.tgname::text, t.tgargs FROM protected t
WHERE t.tgparentid = 0 AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = t.tgrelid)
UNION ALL
SELECT $1, t.tgname::text, t.tgargs FROM protected t JOIN altered a ON a.oid = t.tgrelid WHERE $1 IS NOT NULL
ORDER BY 1, 2
