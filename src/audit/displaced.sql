
FROM (
    SELECT c.oid, c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound,
        to_date(substring(c.relname FROM '\d+_\d\d$'), 'YYYY_MM') AS start
    FROM pg_class c WHERE c.relnamespace = to_regnamespace('skill_system') AND c.relkind = 'r'
        AND c.relname ~ '^audit_logs_(default|\d{4,6}_(0[1-9]|1[0-2]))$') c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = to_regclass('skill_system.audit_logs')
WHERE i.inhrelid IS NULL OR i.inhdetachpending
    OR start IS NOT NULL AND bound <> format('FOR VALUES FROM (%L) TO (%L)', start::timestamp AT TIME ZONE 'UTC',
        (start + interval '1 month') AT TIME ZONE 'UTC')
    -- It gets the row triggers of its parent when it is attached.
    OR EXISTS (SELECT FROM pg_trigger p WHERE p.tgrelid = i.inhparent AND NOT p.tgisinternal AND p.tgtype & 1 = 1
        AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgparentid = p.oid AND t.tgname = p.tgname
            AND (t.tgtype, t.tgfoid) = (p.tgtype, p.tgfoid) AND t.tgqual IS NULL))
ORDER BY start NULLS FIRST
