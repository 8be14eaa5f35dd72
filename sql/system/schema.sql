-- System: the schema's rights, roles, tenant. First part of the install script.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION 'skill_system needs a database with encoding UTF8'
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = 'The bytes that are signed are UTF-8.',
                  HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0;';
    END IF;
END
$$;

-- The owner of the schema can drop what is in it, and a role that may create in it can shadow it.
DO $$
DECLARE
    place record;
BEGIN
    SELECT n.oid, n.nspowner, pg_catalog.pg_get_userbyid(n.nspowner) AS owner,
           EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = n.nspowner AND (r.rolsuper OR r.rolname = current_user)) AS trusted,
           EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
                       AND (d.classid <> 'pg_extension'::regclass
                            OR d.objid <> (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname = 'skill_system'))) AS used,
           EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a
                   WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner) AS writable
    INTO STRICT place FROM pg_catalog.pg_namespace n WHERE n.nspname = 'skill_system';
    IF NOT place.trusted THEN
        RAISE EXCEPTION 'schema "skill_system" already exists and belongs to role "%"', place.owner
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = 'Its owner could drop and replace what the extension creates in it.',
                  HINT = 'DROP SCHEMA skill_system; or give it another name: ALTER SCHEMA skill_system RENAME TO skill_system_legacy;';
    END IF;
    IF place.used THEN
        RAISE EXCEPTION 'schema "skill_system" already exists and is not empty'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'What others created in it could shadow what the extension creates.',
                  HINT = 'Give it another name: ALTER SCHEMA skill_system RENAME TO skill_system_legacy;';
    END IF;
    IF place.writable THEN
        RAISE EXCEPTION 'roles other than its owner may create objects in schema "skill_system"'
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = 'They could shadow what the extension creates.',
                  HINT = 'Revoke CREATE on the schema, and from what ALTER DEFAULT PRIVILEGES grants on schemas.';
    END IF;
END
$$;

DO $$
DECLARE
    base record;
BEGIN
    SELECT d.datname, r.rolname AS owner, r.rolsuper OR r.rolname = current_user AS trusted
    INTO STRICT base FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
    WHERE d.datname = pg_catalog.current_database();
    IF NOT base.trusted THEN
        RAISE WARNING 'database "%" belongs to role "%", which is not a superuser', base.datname, base.owner
            USING DETAIL = 'The owner of a database can drop it, and the audit trail with it.',
                  HINT = pg_catalog.format('ALTER DATABASE %I OWNER TO %I;', base.datname, current_user);
    END IF;
END
$$;

-- Roles belong to the cluster: they may exist because of another database, or because somebody created them for this moment, and
-- they remain after DROP EXTENSION.
DO $$
DECLARE
    names CONSTANT text[] := ARRAY['skill_system_agent', 'skill_system_reviewer', 'skill_system_auditor', 'skill_system_admin'];
    wanted text;
    existing record;
    members text[] := '{}';
BEGIN
    FOREACH wanted IN ARRAY names LOOP
        SELECT pg_catalog.concat_ws(' ', CASE WHEN r.rolsuper THEN 'NOSUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'NOCREATEROLE' END,
                   CASE WHEN r.rolcreatedb THEN 'NOCREATEDB' END, CASE WHEN r.rolcanlogin THEN 'NOLOGIN' END,
                   CASE WHEN r.rolreplication THEN 'NOREPLICATION' END, CASE WHEN r.rolbypassrls THEN 'NOBYPASSRLS' END) AS excess,
               (SELECT o.rolname FROM pg_catalog.pg_roles o
                WHERE o.oid <> r.oid AND pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER')
                    AND (o.rolname = ANY (names) OR o.rolsuper OR o.rolcreaterole OR o.rolcreatedb OR o.rolreplication OR o.rolbypassrls
                         OR o.rolname LIKE 'pg\_%')
                ORDER BY o.rolname LIMIT 1) AS higher,
               (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I', pg_catalog.pg_get_userbyid(m.member)), ', ')
                FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid) AS members
        INTO existing FROM pg_catalog.pg_roles r WHERE r.rolname = wanted;
        IF NOT FOUND THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
        ELSIF existing.excess <> '' THEN
            RAISE EXCEPTION 'role "%" already exists with other attributes', wanted
                USING ERRCODE = 'insufficient_privilege',
                      DETAIL = 'The roles of the extension only group rights: nobody logs in as one of them.',
                      HINT = pg_catalog.format('ALTER ROLE %I %s;', wanted, existing.excess);
        ELSIF existing.higher IS NOT NULL THEN
            RAISE EXCEPTION 'role "%" already exists and is a member of role "%"', wanted, existing.higher
                USING ERRCODE = 'insufficient_privilege',
                      DETAIL = 'Its members would have the rights of both.',
                      HINT = pg_catalog.format('REVOKE %I FROM %I;', existing.higher, wanted);
        ELSIF existing.members IS NOT NULL THEN
            members := members || pg_catalog.format('%s (%s)', wanted, existing.members);
        END IF;
    END LOOP;
    IF members <> '{}' THEN
        RAISE WARNING 'roles of the extension already exist and have members'
            USING DETAIL = pg_catalog.format('They have the rights of these roles in this database, too: %s.',
                                             pg_catalog.array_to_string(members, ', ')),
                  HINT = 'REVOKE the role from those that must not.';
    END IF;
END
$$;

REVOKE ALL ON SCHEMA skill_system FROM PUBLIC;
GRANT USAGE ON SCHEMA skill_system
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin, pg_monitor;
COMMENT ON SCHEMA skill_system IS 'Governs AI agents. Start here: SELECT * FROM skill_system.help();';

-- Comments of somebody else stay.
DO $$
DECLARE
    role record;
BEGIN
    FOR role IN
        SELECT * FROM (VALUES
            ('skill_system_agent', 'skill_system: programs that act: check policies, log runs, register skills, work on filings'),
            ('skill_system_reviewer', 'skill_system: people who decide: approve skills, filings and rules'),
            ('skill_system_auditor', 'skill_system: reads everything of all tenants, verifies and seals the audit trail'),
            ('skill_system_admin', 'skill_system: changes policies, rules and templates, maintains the log')) AS r(name, comment)
        WHERE pg_catalog.shobj_description(r.name::regrole, 'pg_authid') IS NULL
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', role.name, role.comment);
    END LOOP;
END
$$;

CREATE FUNCTION skill_system.current_tenant() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_current_tenant';
COMMENT ON FUNCTION skill_system.current_tenant() IS
'Tenant whose rows this session sees and writes. Set by a superuser through the setting skill_system.tenant, for example ALTER ROLE app '
'SET skill_system.tenant = ''acme''; "default" if it is not set. Example: SELECT skill_system.current_tenant();';

CREATE FUNCTION skill_system.uuid_v7() RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_uuid_v7';
COMMENT ON FUNCTION skill_system.uuid_v7() IS
'A new UUID version 7 (RFC 9562): ordered by time in milliseconds. Example: SELECT skill_system.uuid_v7();';

CREATE FUNCTION skill_system.check_bounds() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_check_bounds';
COMMENT ON FUNCTION skill_system.check_bounds() IS
'Trigger function of every table of the extension but the audit trail, which has bounds in its signing trigger: rejects values of more '
'than 32 MiB, and JSON of more than 16 MiB as text, 64 levels, 1048576 members and elements, or with numbers that a double cannot hold, '
'with 54000; infinite times and days, those of other years than 1 to 9999, and texts of more than 1024 bytes in the columns that its '
'arguments name, which are those of indexes, with 22023. To restore rows that are older than these bounds, set '
'skill_system.allow_unprotected. Fires at the origin.';

-- Trigger functions that several modules use.
CREATE FUNCTION skill_system.keep_updated_at() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_keep_updated_at' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.keep_updated_at() IS
'Trigger function of tables with a column updated_at: sets it to the time of the change. Fires at the origin.';
CREATE FUNCTION skill_system.guard_columns() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_columns' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.guard_columns() IS
'Trigger function of tables whose rows are facts: rejects changes to any column except those in its arguments.';

GRANT EXECUTE ON FUNCTION skill_system.current_tenant(), skill_system.uuid_v7()
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
