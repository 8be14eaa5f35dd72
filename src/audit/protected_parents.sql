-- Tables above or among those that the statement created or changed that have children and a row trigger of this extension.
WITH RECURSIVE up(oid) AS (
    SELECT objid FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass
    UNION
    SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid
)
SELECT t.tgrelid, t.tgname::text, t.tgargs
FROM up
JOIN pg_trigger t ON t.tgrelid = up.oid AND t.tgname IN ('skill_system_audit', 'skill_system_no_change') AND t.tgparentid = 0
JOIN pg_proc p ON p.oid = t.tgfoid
WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system')
    AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = up.oid)
ORDER BY t.tgrelid
