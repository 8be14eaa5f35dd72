-- Lockdown: what holds for every object of the extension, done in one place, and the installation fails where an object lacks
-- what it must have. Last part of the install script; upgrade scripts end with the same text, so it can be repeated.
-- Modules keep their GRANTs, and policies that differ: a policy that exists under the same name is left alone.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

REVOKE ALL ON ALL TABLES IN SCHEMA skill_system FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA skill_system FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA skill_system FROM PUBLIC;

-- Nor from what ALTER DEFAULT PRIVILEGES of the installing role grants on everything that it creates.
DO $$
DECLARE
    grantee regrole;
BEGIN
    FOR grantee IN
        SELECT DISTINCT a.grantee::regrole FROM pg_catalog.pg_default_acl d
        CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a
        WHERE d.defaclrole = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
            AND d.defaclnamespace IN (0, 'skill_system'::regnamespace)
            AND a.grantee NOT IN (0, d.defaclrole) AND pg_catalog.pg_get_userbyid(a.grantee) NOT IN (
                'skill_system_agent', 'skill_system_reviewer', 'skill_system_auditor', 'skill_system_admin')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA skill_system FROM %s', grantee);
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA skill_system FROM %s', grantee);
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL ROUTINES IN SCHEMA skill_system FROM %s', grantee);
    END LOOP;
END
$$;

DO $$
DECLARE
    object record;
    problems text[];
BEGIN
    FOR object IN
        SELECT c.oid::regclass AS name
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid
        WHERE e.extname = 'skill_system' AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity
        ORDER BY c.oid
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', object.name);
    END LOOP;

    -- A partition is reached through its parent, whose policies apply; only auditors may read it directly.
    FOR object IN
        SELECT c.oid::regclass AS name, p.policy, p.definition
        FROM pg_catalog.pg_class c
        CROSS JOIN (VALUES
            ('tenant', 'USING (tenant_id OPERATOR(pg_catalog.=) (SELECT skill_system.current_tenant()))'),
            ('auditor', 'FOR SELECT TO skill_system_auditor USING (true)')) AS p(policy, definition)
        WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p')
            AND (p.policy <> 'tenant' OR NOT c.relispartition AND EXISTS (
                SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'))
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy x WHERE x.polrelid = c.oid AND x.polname = p.policy)
        ORDER BY c.oid, p.policy DESC
    LOOP
        EXECUTE pg_catalog.format('CREATE POLICY %I ON %s %s', object.policy, object.name, object.definition);
    END LOOP;

    FOR object IN
        SELECT t.oid::regtype AS name
        FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = 'skill_system'::regnamespace AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
        ORDER BY t.oid
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TYPE %s FROM PUBLIC', object.name);
    END LOOP;

    WITH relation AS (
        -- The audit trail, all tables named audit_..., belongs to the whole database; what protects it is in src/audit/protection.rs.
        SELECT c.*, pg_catalog.format('table %s', c.relname) AS label, c.relname LIKE 'audit\_%' AS is_audit, EXISTS (
                   SELECT FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.atttypid = 'text'::regtype AND a.attnotnull) AS has_tenant
        FROM pg_catalog.pg_class c WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p')
    ), problem(what) AS (
        SELECT label || ' has no column tenant_id text NOT NULL' FROM relation
        WHERE NOT has_tenant AND NOT is_audit
        UNION ALL
        SELECT label || ' has no primary key that starts with tenant_id' FROM relation r
        WHERE NOT relispartition AND NOT is_audit
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_index i
                JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                WHERE i.indrelid = r.oid AND i.indisprimary AND a.attname = 'tenant_id')
        UNION ALL
        SELECT label || ' has no row level security' FROM relation WHERE NOT relrowsecurity
        UNION ALL
        SELECT pg_catalog.format('view %s is not a security_invoker view', c.relname) FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind = 'v'
            AND NOT coalesce(c.reloptions @> ARRAY['security_invoker=true'], false)
        UNION ALL
        SELECT pg_catalog.format('%s has no comment', pg_catalog.pg_describe_object(o.classid, o.oid, 0))
        FROM (
            SELECT c.tableoid AS classid, c.oid FROM pg_catalog.pg_class c
            WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            UNION ALL
            SELECT p.tableoid, p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'skill_system'::regnamespace
            UNION ALL
            SELECT t.tableoid, t.oid FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
            WHERE t.typnamespace = 'skill_system'::regnamespace AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
        ) o
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_description d WHERE d.classoid = o.classid AND d.objoid = o.oid AND d.objsubid = 0)
    )
    SELECT pg_catalog.array_agg(what ORDER BY what) INTO problems FROM problem;
    IF problems IS NOT NULL THEN
        RAISE EXCEPTION 'incomplete definitions in schema skill_system'
            USING ERRCODE = 'invalid_object_definition', DETAIL = pg_catalog.array_to_string(problems, E'\n');
    END IF;
END
$$;

DO $$
DECLARE
    object record;
BEGIN
    -- What one role stores, others must be able to read. The name puts it before the triggers that read the row. Its arguments are the
    -- columns of B-tree indexes whose type has no bound.
    FOR object IN
        SELECT c.oid::regclass AS name, (
            SELECT pg_catalog.string_agg(DISTINCT pg_catalog.quote_literal(a.attname), ', ' ORDER BY pg_catalog.quote_literal(a.attname))
            FROM pg_catalog.pg_index x
            JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
            JOIN pg_catalog.pg_am m ON m.oid = i.relam AND m.amname = 'btree'
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (x.indkey::int2[])
            WHERE x.indrelid = c.oid AND a.atttypid = 'text'::regtype AND a.attname <> 'tenant_id'
        ) AS indexed
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND c.relname NOT LIKE 'audit\_%'
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'a_bounds')
        ORDER BY c.oid
    LOOP
        EXECUTE pg_catalog.format('CREATE TRIGGER a_bounds BEFORE INSERT OR UPDATE ON %s FOR EACH ROW '
            'EXECUTE FUNCTION skill_system.check_bounds(%s)', object.name, object.indexed);
    END LOOP;

    -- Nothing switches triggers off, also not session_replication_role = replica, except those that complete, check or report the rows
    -- of a session, which replicated rows have been through: their comment, or that of their function, contains "Fires at the origin".
    FOR object IN
        SELECT t.tgrelid::regclass AS name, t.tgname AS trigger
        FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
        JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE c.relnamespace = 'skill_system'::regnamespace AND p.pronamespace = 'skill_system'::regnamespace
            AND NOT t.tgisinternal AND t.tgenabled <> 'A'
            AND pg_catalog.concat(pg_catalog.obj_description(t.oid, 'pg_trigger'), pg_catalog.obj_description(p.oid, 'pg_proc'))
                NOT LIKE '%Fires at the origin%'
        ORDER BY t.oid
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', object.name, object.trigger);
    END LOOP;
END
$$;

DO $$
DECLARE
    object record;
BEGIN
    -- What \df+ and \d+ show: a line that says what it is for, the rest, and the example. Comments with line breaks stay.
    FOR object IN
        SELECT o.name, pg_catalog.regexp_replace(
                   pg_catalog.regexp_replace(d.description, '^(.+?[.]) (?=[A-Za-z])', E'\\1\n'),
                   ' (?=Task \d+: |Examples?: )', E'\n', 'g') AS comment
        FROM (
            SELECT p.tableoid AS class, p.oid, pg_catalog.format('FUNCTION %s', p.oid::regprocedure) AS name
            FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'skill_system'::regnamespace
            UNION ALL
            SELECT c.tableoid, c.oid, pg_catalog.format('%s %s', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass)
            FROM pg_catalog.pg_class c WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p', 'v')
        ) o
        JOIN pg_catalog.pg_description d ON d.classoid = o.class AND d.objoid = o.oid AND d.objsubid = 0
        WHERE pg_catalog.strpos(d.description, E'\n') = 0
        ORDER BY o.class, o.oid
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON %s IS %L', object.name, object.comment);
    END LOOP;
END
$$;

DO $$
DECLARE
    object record;
BEGIN
    -- pg_dump dumps the rows of all tables and the state of their sequences, in the order of creation.
    FOR object IN
        SELECT c.oid::regclass AS name
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid
        LEFT JOIN pg_catalog.pg_depend o ON c.relkind = 'S' AND o.classid = d.classid AND o.objid = c.oid
            AND o.refclassid = d.classid AND o.deptype IN ('a', 'i')
        WHERE e.extname = 'skill_system' AND c.relkind IN ('r', 'p', 'S')
        ORDER BY coalesce(o.refobjid, c.oid), c.relkind = 'S'
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump(object.name, '');
    END LOOP;
END
$$;
