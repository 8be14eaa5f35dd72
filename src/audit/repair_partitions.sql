-- Months that were detached, and the trigger that each month needs.
WITH log AS (SELECT to_regclass('skill_system.audit_logs')::oid AS oid),
month AS (
    SELECT c.oid, c.relname, EXISTS (SELECT FROM pg_inherits i, log WHERE i.inhrelid = c.oid AND i.inhparent = log.oid) AS attached,
        to_date(substring(c.relname FROM '\d+_\d\d$'), 'YYYY_MM') AS start
    FROM pg_class c WHERE c.relnamespace = to_regnamespace('skill_system') AND c.relkind = 'r'
        AND c.relname ~ '^audit_logs_(default|\d{4,}_\d\d)$')
SELECT format('partition %s', relname), format('ALTER TABLE skill_system.audit_logs ATTACH PARTITION skill_system.%I %s', relname,
    CASE WHEN start IS NULL THEN 'DEFAULT' ELSE format('FOR VALUES FROM (''%s 00:00:00+00'') TO (''%s 00:00:00+00'')', start,
        (start + interval '1 month')::date) END)
FROM month WHERE NOT attached
UNION ALL
SELECT format('trigger audit_logs_no_truncate of %s', relname), format('CREATE OR REPLACE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE
    ON skill_system.%1$I FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
    ALTER TABLE skill_system.%1$I ENABLE ALWAYS TRIGGER audit_logs_no_truncate', relname)
FROM month m WHERE NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = m.oid AND t.tgname = 'audit_logs_no_truncate'
    AND t.tgfoid = to_regprocedure('skill_system.refuse_change()'))
