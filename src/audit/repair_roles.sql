-- The roles of the extension only group rights: nobody logs in as one of them, and none has the rights of another role that could
-- bypass the extension: a superuser, a role with attributes, a predefined one, or another one of the four. What is wrong, and the
-- statement against it.
WITH RECURSIVE own(name) AS (
    SELECT unnest(ARRAY['skill_system_agent', 'skill_system_reviewer', 'skill_system_auditor', 'skill_system_admin'])
), above(member, granted, role) AS (
    -- Each membership of one of them, and all roles whose rights come with it.
    SELECT r.oid, m.roleid, m.roleid FROM own o JOIN pg_roles r ON r.rolname = o.name JOIN pg_auth_members m ON m.member = r.oid
    UNION
    SELECT a.member, a.granted, m.roleid FROM above a JOIN pg_auth_members m ON m.member = a.role
)
SELECT format('role %s is missing', o.name), format('CREATE ROLE %I NOLOGIN', o.name)
FROM own o WHERE to_regrole(o.name) IS NULL
UNION ALL
SELECT format('role %s is %s', r.rolname, lower(x.attribute)), format('ALTER ROLE %I NO%s', r.rolname, x.attribute)
FROM own o JOIN pg_roles r ON r.rolname = o.name
CROSS JOIN LATERAL (VALUES ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
    ('LOGIN', r.rolcanlogin), ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) AS x(attribute, is_set)
WHERE x.is_set
UNION ALL
SELECT format('role %s is a member of %s', a.member::regrole, string_agg(DISTINCT b.rolname, ', ' ORDER BY b.rolname)),
    (SELECT string_agg(format('REVOKE %s FROM %s%s', a.granted::regrole, a.member::regrole,
            ' GRANTED BY ' || quote_ident(g.rolname)), '; ')
        FROM pg_auth_members m LEFT JOIN pg_roles g ON g.oid = m.grantor WHERE m.member = a.member AND m.roleid = a.granted)
FROM above a JOIN pg_roles b ON b.oid = a.role
WHERE b.rolsuper OR b.rolcreaterole OR b.rolcreatedb OR b.rolreplication OR b.rolbypassrls OR b.rolname LIKE 'pg\_%'
    OR b.rolname IN (SELECT name FROM own)
GROUP BY a.member, a.granted
ORDER BY 1
