-- Health, maintenance and versions.

CREATE FUNCTION skill_system.version_info()
    RETURNS TABLE (library text, catalogue text, server text, pgrx text, advice text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_version_info' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.version_info() IS
'Versions of the loaded library, of the objects in this database, of the server and of pgrx, and what to do when the first two differ, or '
'objects are missing or changed. Example: SELECT * FROM skill_system.version_info();';

CREATE FUNCTION skill_system.health() RETURNS TABLE ("check" text, status text, detail text, hint text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_health' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.health() IS
'One row per check of the installation and its modules. status is ok, warning or error; hint is how to fix it. For auditors, '
'administrators and members of pg_monitor. Task 33: Is the server in '
'order? Example: SELECT * FROM skill_system.health() WHERE status <> ''ok'';';

CREATE FUNCTION skill_system.maintain(max_rows integer DEFAULT 10000)
    RETURNS TABLE (task text, affected bigint, detail text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_maintain' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.maintain(integer) IS
'Periodic maintenance; one row per task. audit_partitions creates the partitions of this month and the next two; run_retention deletes '
'runs that ended longer ago than skill_system.run_retention, by the server''s clock, with their events, at most max_rows a call, and '
'records that as runs.deleted: an administrator those of the session''s tenant, the owner those of all; audit_seal seals the records that '
'are not sealed yet; audit_sweep seals records that a regular seal would skip and records that as audit.sealed_late. Safe to repeat and '
'to interrupt; call it once a day. Raises 22023 for a max_rows out of bounds. Task 43: Do what is due. Example: SELECT * FROM '
'skill_system.maintain();';

CREATE FUNCTION skill_system.delete_rows(table_name regclass, key jsonb) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_delete_rows' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.delete_rows(regclass, jsonb) IS
'Deletes the rows of the session''s tenant whose columns have the values in key, from one of the tables that administrators maintain: '
'policies, templates, entity types and their parts, agents and what belongs to them. Returns how many. Administrators have no DELETE '
'right, because it would let them lock the table against all tenants. Raises 22023 for another table or an empty key, 42704 for an unknown '
'column. Example: SELECT skill_system.delete_rows(''skill_system.policy_profiles'', ''{"name": "dev"}'');';

GRANT EXECUTE ON FUNCTION skill_system.maintain(integer), skill_system.delete_rows(regclass, jsonb) TO skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.version_info()
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.health() TO skill_system_auditor, skill_system_admin;
