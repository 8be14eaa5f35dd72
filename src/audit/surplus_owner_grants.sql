-- What takes EXECUTE on capture_change() from role $1, which was granted it as the owner of an audited partitioned table and is none now.
SELECT format('REVOKE EXECUTE ON FUNCTION skill_system.capture_change() FROM %I', r.rolname)
FROM pg_proc p
CROSS JOIN LATERAL aclexplode(p.proacl) a
JOIN pg_roles r ON r.oid = a.grantee
WHERE p.pronamespace = to_regnamespace('skill_system') AND p.proname = 'capture_change'
    AND r.oid = $1 AND r.oid <> p.proowner AND r.rolname <> 'skill_system_admin'
    AND NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE t.tgfoid = p.oid AND c.relkind = 'p' AND c.relowner = r.oid)
