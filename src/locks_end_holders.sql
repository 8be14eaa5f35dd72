-- Appended to locks_holders.sql: ends those that are older than $4 seconds and not above the rank $5.
SELECT h.pid, h.rolname, h.old AND pg_terminate_backend(h.pid) FROM (
    SELECT l.pid, r.rolname::text AS rolname, l.xact_start < clock_timestamp() - make_interval(secs => $4) AS old
    FROM holder l
    JOIN pg_roles r ON r.oid = l.usesysid
    WHERE l.pid <> pg_backend_pid() AND l.xact_start IS NOT NULL AND NOT r.rolsuper
        AND CASE WHEN pg_has_role(r.oid, 'skill_system_admin', 'MEMBER') THEN 2
                 WHEN pg_has_role(r.oid, 'skill_system_reviewer', 'MEMBER') THEN 1 ELSE 0 END <= $5
    OFFSET 0
) h
