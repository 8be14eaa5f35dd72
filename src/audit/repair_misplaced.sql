-- Appended to places.sql: what is in the place of a month, and the statements that take it away; it may hold records.
SELECT 'partition ' || relname, format('%s: SET skill_system.allow_unprotected = on; %s; SELECT FROM skill_system.maintain()',
    CASE relkind WHEN 'f' THEN 'a foreign table' WHEN 'p' THEN 'a partitioned table'
        ELSE CASE WHEN attached THEN 'not a month of UTC' ELSE 'not the name of a month' END END || ' is no partition of the extension',
    concat_ws('; ',
        CASE WHEN attached THEN format('ALTER TABLE skill_system.audit_logs DETACH PARTITION %s', name) END,
        CASE WHEN nspname = 'skill_system' THEN format('ALTER TABLE %s SET SCHEMA public', name) END,
        CASE WHEN relkind <> 'f' AND attached THEN format('INSERT INTO skill_system.audit_logs SELECT * FROM %I.%I',
            CASE nspname WHEN 'skill_system' THEN 'public' ELSE nspname END, relname) END))
FROM place
WHERE relkind <> 'r' OR wanted IS NULL OR nspname <> 'skill_system'
ORDER BY 1
