-- Appended to places.sql: months that somebody renamed or moved to another schema.
SELECT 'partition ' || wanted, concat_ws('; ',
    CASE WHEN relname <> wanted THEN format('ALTER TABLE %s RENAME TO %I', name, wanted) END,
    CASE WHEN nspname <> 'skill_system' THEN format('ALTER TABLE %I.%I SET SCHEMA skill_system', nspname, wanted) END)
FROM place
WHERE attached AND wanted IS NOT NULL AND relkind = 'r' AND (nspname, relname) <> ('skill_system', wanted)
    -- The name of a month counts more than its bounds: displaced.sql.
    AND NOT (nspname = 'skill_system' AND relname ~ '^audit_logs_(default|\d{4,6}_(0[1-9]|1[0-2]))$')
    AND to_regclass('skill_system.' || quote_ident(wanted)) IS NULL
ORDER BY wanted
