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

-- Roles belong to the cluster: they may exist because of another database, and they remain after DROP EXTENSION.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['skill_system_agent', 'skill_system_reviewer', 'skill_system_auditor', 'skill_system_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON SCHEMA skill_system FROM PUBLIC;
GRANT USAGE ON SCHEMA skill_system
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;

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
'with 54000; infinite times and days, and those of other years than 1 to 9999, with 22023. To restore rows that are older than these '
'bounds, set skill_system.allow_unprotected.';

GRANT EXECUTE ON FUNCTION skill_system.current_tenant(), skill_system.uuid_v7()
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
