-- $1: the rights that the script grants. What differs: in words, whether it is missing, and the statement against it.
WITH space AS (SELECT oid, nspowner, nspacl FROM pg_namespace WHERE nspname = 'skill_system'),
listed AS (
    SELECT * FROM jsonb_to_recordset($1) AS g(kind text, object text, "column" text, privilege text, role text)
    UNION ALL
    -- The months, which maintain() creates.
    SELECT 'relation', i.inhrelid::regclass::text, '', 'SELECT', 'skill_system_auditor' FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid JOIN space s ON s.oid = c.relnamespace
    WHERE i.inhparent = to_regclass('skill_system.audit_logs') AND NOT i.inhdetachpending),
wanted AS (
    SELECT DISTINCT kind, CASE kind WHEN 'function' THEN to_regprocedure(object)::oid WHEN 'type' THEN to_regtype(object)::oid
               WHEN 'schema' THEN to_regnamespace(object)::oid ELSE to_regclass(object)::oid END AS oid,
        object, "column", privilege, role, to_regrole(role)::oid AS grantee
    FROM listed),
acl AS (
    SELECT 'relation' AS kind, c.oid, '' AS "column", c.relowner AS owner, c.relacl AS acl, c.relkind FROM pg_class c JOIN space s
        ON c.relnamespace = s.oid WHERE c.relkind IN ('r', 'p', 'v', 'f', 'S')
    UNION ALL
    SELECT 'relation', c.oid, a.attname, c.relowner, a.attacl, c.relkind FROM pg_class c JOIN space s ON c.relnamespace = s.oid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped WHERE c.relkind IN ('r', 'p', 'v', 'f')
    UNION ALL
    SELECT 'function', p.oid, '', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)), NULL FROM pg_proc p JOIN space s
        ON p.pronamespace = s.oid
    UNION ALL
    SELECT 'type', t.oid, '', t.typowner, coalesce(t.typacl, acldefault('T', t.typowner)), NULL FROM pg_type t JOIN space s
        ON t.typnamespace = s.oid LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c'
    UNION ALL
    SELECT 'schema', s.oid, '', s.nspowner, s.nspacl, NULL FROM space s),
actual AS (
    SELECT a.kind, a.oid, a."column", x.grantee, x.privilege_type AS privilege, x.is_grantable, a.relkind,
        CASE a.kind WHEN 'function' THEN a.oid::regprocedure::text WHEN 'type' THEN a.oid::regtype::text WHEN 'schema' THEN 'skill_system'
            ELSE a.oid::regclass::text END AS object
    FROM acl a CROSS JOIN LATERAL aclexplode(a.acl) x WHERE x.grantee <> a.owner),
class(kind, word) AS (VALUES ('function', 'FUNCTION '), ('type', 'TYPE '), ('schema', 'SCHEMA '), ('relation', ''))
SELECT format('%s%s on %s for %s', w.privilege, CASE WHEN w."column" <> '' THEN ' (' || w."column" || ')' END, w.object, w.role) AS what,
    true AS is_missing,
    format('GRANT %s%s ON %s%s TO %I', w.privilege, CASE WHEN w."column" <> '' THEN format(' (%I)', w."column") END,
        CASE WHEN w.kind = 'relation' AND c.relkind = 'S' THEN 'SEQUENCE ' ELSE k.word END, w.object, w.role) AS statement
FROM wanted w JOIN class k ON k.kind = w.kind LEFT JOIN pg_class c ON w.kind = 'relation' AND c.oid = w.oid
WHERE w.oid IS NOT NULL
    AND (w."column" = '' OR EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = w.oid AND t.attname = w."column"))
    AND NOT EXISTS (
    SELECT FROM actual a WHERE a.kind = w.kind AND a.oid = w.oid AND a."column" = w."column" AND a.grantee = w.grantee
        AND a.privilege = w.privilege)
UNION ALL
SELECT format('%s%s on %s for %s', a.privilege, CASE WHEN a."column" <> '' THEN ' (' || a."column" || ')' END, a.object,
        coalesce(r.rolname, 'PUBLIC')),
    false,
    format('REVOKE %s%s ON %s%s FROM %s CASCADE', a.privilege, CASE WHEN a."column" <> '' THEN format(' (%I)', a."column") END,
        CASE WHEN a.relkind = 'S' THEN 'SEQUENCE ' ELSE k.word END, a.object, coalesce(quote_ident(r.rolname), 'PUBLIC'))
FROM actual a JOIN class k ON k.kind = a.kind LEFT JOIN pg_roles r ON r.oid = a.grantee
-- Who else may read, and do what the extension's roles do, is the administrators' choice; row security binds them too. Nobody else
-- creates objects in the schema, or calls what is for superusers.
WHERE (a.grantee = 0 OR r.rolname LIKE 'skill\_system\_%' OR a.kind = 'relation' AND a.privilege NOT IN ('SELECT', 'USAGE')
        OR a.kind = 'schema' AND a.privilege = 'CREATE'
        OR a.kind = 'function' AND NOT EXISTS (SELECT FROM wanted w WHERE w.kind = a.kind AND w.oid = a.oid))
    AND NOT EXISTS (
        SELECT FROM wanted w WHERE w.kind = a.kind AND w.oid = a.oid AND w."column" = a."column" AND w.grantee = a.grantee
            AND w.privilege = a.privilege)
UNION ALL
SELECT format('grant option for %s%s on %s for %s', a.privilege, CASE WHEN a."column" <> '' THEN ' (' || a."column" || ')' END, a.object,
        r.rolname),
    false,
    format('REVOKE GRANT OPTION FOR %s%s ON %s%s FROM %I CASCADE', a.privilege,
        CASE WHEN a."column" <> '' THEN format(' (%I)', a."column") END,
        CASE WHEN a.relkind = 'S' THEN 'SEQUENCE ' ELSE k.word END, a.object, r.rolname)
FROM actual a JOIN class k ON k.kind = a.kind JOIN pg_roles r ON r.oid = a.grantee
WHERE a.is_grantable AND r.rolname LIKE 'skill\_system\_%'
ORDER BY 2 DESC, 1
