SELECT h.pid, h.rolname, h.old AND pg_terminate_backend(h.pid) FROM (
    SELECT DISTINCT a.pid, r.rolname::text AS rolname, a.xact_start < clock_timestamp() - make_interval(secs => $3) AS old
    FROM pg_stat_activity a
    JOIN pg_roles r ON r.oid = a.usesysid
    WHERE a.pid = ANY ($1) AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL AND NOT r.rolsuper
        AND CASE WHEN pg_has_role(r.oid, 'skill_system_admin', 'MEMBER') THEN 2
                 WHEN pg_has_role(r.oid, 'skill_system_reviewer', 'MEMBER') THEN 1 ELSE 0 END <= $2
    OFFSET 0
) h
