-- Partitions of audit_logs, and what has the name of one: what it is called, what it must be called (NULL: no partition of the extension
-- has its bounds), and whether that name is free.
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system'),
candidate AS (
    SELECT c.oid, c.relname, c.relkind, n.nspname, i.inhrelid IS NOT NULL AS attached, pg_get_expr(c.relpartbound, c.oid) AS bound
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = to_regclass('skill_system.audit_logs')
    WHERE i.inhrelid IS NOT NULL
        OR n.oid = (SELECT oid FROM space) AND c.relname LIKE 'audit\_logs\_%' AND c.relkind IN ('r', 'p', 'f')
), bounds AS (
    SELECT *, substring(bound FROM '^FOR VALUES FROM \(''([^'']+)''\) TO')::timestamptz AT TIME ZONE 'UTC' AS lower,
        substring(bound FROM 'TO \(''([^'']+)''\)$')::timestamptz AT TIME ZONE 'UTC' AS upper FROM candidate
), place AS (
    SELECT *, CASE WHEN NOT attached THEN substring(relname FROM '^audit_logs_(?:default|\d{4,6}_(?:0[1-9]|1[0-2]))$')
        WHEN bound = 'DEFAULT' THEN 'audit_logs_default'
        WHEN lower = date_trunc('month', lower) AND upper = lower + interval '1 month' THEN 'audit_logs_' || to_char(lower, 'YYYY_MM')
        END AS wanted, format('%I.%I', nspname, relname) AS name
    FROM bounds
)
