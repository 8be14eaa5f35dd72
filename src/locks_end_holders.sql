SELECT h.pid, h.rolname, h.old AND pg_terminate_backend(h.pid) FROM (
    SELECT DISTINCT l.pid, r.rolname::text AS rolname, a.xact_start < clock_timestamp() - make_interval(secs => $4) AS old
    FROM pg_locks l
    JOIN pg_stat_activity a ON a.pid = l.pid
    JOIN pg_roles r ON r.oid = a.usesysid
    WHERE l.locktype = 'object' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid = $1 AND l.objid::bigint = $2 AND l.objsubid = $5 AND l.granted AND l.pid <> pg_backend_pid()
        AND a.xact_start IS NOT NULL AND NOT r.rolsuper
        AND CASE WHEN pg_has_role(r.oid, 'skill_system_admin', 'MEMBER') THEN 2
                 WHEN pg_has_role(r.oid, 'skill_system_reviewer', 'MEMBER') THEN 1 ELSE 0 END <= $3
    OFFSET 0
) h
