
FROM (
    SELECT c.oid, c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound,
        to_date(substring(c.relname FROM '\d+_\d\d$'), 'YYYY_MM') AS start
    FROM pg_class c WHERE c.relnamespace = to_regnamespace('skill_system') AND c.relkind = 'r'
        AND c.relname ~ '^audit_logs_(default|\d{4,6}_(0[1-9]|1[0-2]))$') c
WHERE NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
    OR start IS NOT NULL AND bound <> format('FOR VALUES FROM (%L) TO (%L)', start::timestamp AT TIME ZONE 'UTC',
        (start + interval '1 month') AT TIME ZONE 'UTC')
ORDER BY start NULLS FIRST
