-- What is wrong with row security, and the statement against it; a policy that is missing is created by lockdown.sql.
WITH relation AS (
    SELECT c.oid, c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped) AS has_tenant
    FROM pg_class c WHERE c.relnamespace = to_regnamespace('skill_system') AND c.relkind IN ('r', 'p')
        -- A table of somebody else's is reported as that.
        AND (c.relispartition OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'))),
wanted(relation, policy, command, condition, new_rows, roles) AS (
    SELECT oid, 'auditor', 'r'::"char", 'true', NULL, to_regrole('skill_system_auditor')::oid FROM relation
    UNION ALL
    SELECT oid, 'tenant', CASE WHEN relname IN ('audit_logs', 'audit_kept') THEN 'r'::"char" ELSE '*' END,
        '(tenant_id = ( SELECT skill_system.current_tenant() AS current_tenant))', NULL, 0
    FROM relation WHERE has_tenant AND NOT relispartition
    UNION ALL
    SELECT oid, 'append', 'a'::"char", NULL, 'true', 0 FROM relation WHERE relname = 'audit_logs')
SELECT format('row security of %s is off', r.relname), format('ALTER TABLE skill_system.%I ENABLE ROW LEVEL SECURITY', r.relname)
FROM relation r WHERE NOT r.relrowsecurity
UNION ALL
SELECT format('row security of %s is forced on its owner', r.relname), format('ALTER TABLE skill_system.%I NO FORCE ROW LEVEL SECURITY',
    r.relname) FROM relation r WHERE r.relforcerowsecurity
UNION ALL
SELECT format('policy %s of %s is missing', w.policy, r.relname), NULL FROM wanted w JOIN relation r ON r.oid = w.relation
WHERE NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = w.relation AND p.polname = w.policy)
UNION ALL
SELECT format('policy %s of %s is not the extension''s', p.polname, r.relname), format('DROP POLICY %I ON skill_system.%I', p.polname,
    r.relname)
FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
WHERE NOT EXISTS (
    SELECT FROM wanted w WHERE w.relation = p.polrelid AND w.policy = p.polname AND w.command = p.polcmd AND p.polpermissive
        AND p.polroles = ARRAY[w.roles] AND pg_get_expr(p.polqual, p.polrelid) IS NOT DISTINCT FROM w.condition
        AND pg_get_expr(p.polwithcheck, p.polrelid) IS NOT DISTINCT FROM w.new_rows)
ORDER BY 1
