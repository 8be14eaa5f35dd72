-- Skills: the adapter for skills-runtime-sdk 0.1.12: client schemas, mentions, injection, scan, preflight, bundles, Redis.

CREATE FUNCTION skill_system.write_client_skill() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'skill_write_client_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.write_client_skill() IS
'The INSTEAD OF trigger function of the views that create_client_schema() creates. Fires at the origin. Example: SELECT '
'skill_system.create_client_schema(''skills_runtime'');';

CREATE FUNCTION skill_system.create_client_schema(client text, schema_name text DEFAULT 'agent') RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_create_client_schema' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.create_client_schema(text, text) IS
'Creates the objects that a client expects: for skills_runtime a schema with the view skills_catalog, which passes INSERT (registers a '
'skill), UPDATE (of body: a new version; of enabled: enables or disables an approved skill) and DELETE (takes the skill out of use) to the '
'registry. The caller owns the schema and needs the privilege to create one. Returns the view''s name. A second call recreates the view. '
'Raises 55000 for a schema that it did not create for the caller, 22023 for another client. Example: SELECT '
'skill_system.create_client_schema(''skills_runtime'', schema_name => ''agent'');';
CREATE FUNCTION skill_system.drop_client_schema(client text, schema_name text DEFAULT 'agent') RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_drop_client_schema' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.drop_client_schema(text, text) IS
'Drops what create_client_schema() created for the caller; the registry keeps its skills. False when the schema does not exist. Raises '
'55000 for a schema that it did not create for the caller, 2BP01 while other objects are in it, 22023 for another client. Example: SELECT '
'skill_system.drop_client_schema(''skills_runtime'', schema_name => ''agent'');';

CREATE FUNCTION skill_system.resolve_mentions(text text)
    RETURNS TABLE (mention text, namespace text, skill_name text, found boolean, skill_id uuid, locator text, code text, details jsonb)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_resolve_mentions' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.resolve_mentions(text) IS
'The skills that a text mentions as $[namespace].skill_name, each once, in order of appearance. A skill that does not exist or is not '
'enabled has found false and the code SKILL_UNKNOWN, or SKILL_SPACE_NOT_CONFIGURED when the namespace contains no skills. Malformed '
'mentions are plain text. Raises 54000 for more than 16 MiB. Example: SELECT * FROM skill_system.resolve_mentions(''use '
'$[team:pdf].pdf-forms here'');';

CREATE FUNCTION skill_system.inject_skill(skill text, max_bytes integer DEFAULT NULL) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_inject_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.inject_skill(text, integer) IS
'The text of an enabled skill for a prompt, between <skill> tags with its name and locator. skill is a mention, a name in the namespace '
'default, namespace/name or a UUID. An error''s detail is the client''s object {code, message, details} as JSON. Raises SK404 for '
'SKILL_UNKNOWN, 54000 for SKILL_BODY_TOO_LARGE, SK405 for SKILL_BODY_READ_FAILED, 22023 for SKILL_MENTION_FORMAT_INVALID. Example: SELECT '
'skill_system.inject_skill(''$[team:pdf].pdf-forms'', max_bytes => 65536);';

CREATE FUNCTION skill_system.scan_skills(namespace text, source regclass DEFAULT NULL)
    RETURNS TABLE (locator text, skill_name text, description text, body_size bigint, body_etag text, created_at text, updated_at text,
        required_env_vars text[], metadata jsonb, scope text, code text, details jsonb)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_scan_skills' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.scan_skills(text, regclass) IS
'The enabled skills of a namespace as skills-runtime-sdk finds them; code and details tell why it would reject a row: '
'SKILL_SCAN_METADATA_INVALID with the field, SKILL_DUPLICATE_NAME with the locators. One such row prevents the client from resolving any '
'mention. No body is read. source is any table or view with the client''s columns, read with the caller''s privileges; default: the '
'registry. Raises 22023 for an invalid namespace. Example: SELECT locator, code, details FROM skill_system.scan_skills(''default'') WHERE '
'code IS NOT NULL;';

CREATE FUNCTION skill_system.preflight_skills(config jsonb)
    RETURNS TABLE (code text, level text, message text, path text, details jsonb)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_preflight_skills' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.preflight_skills(jsonb) IS
'Problems of a configuration of skills-runtime-sdk (all of it, or its part skills), with the client''s codes; no rows if none exist. '
'CLI_CONFIG_INVALID is what the client''s schema rejects. The client''s exit code is 10 with any row of level error, 12 with warnings '
'only, else 0. Checks only the configuration. Raises 54000 for more than 1 MiB. Example: SELECT code, path FROM '
'skill_system.preflight_skills(''{"spaces": [{"id": "s1", "namespace": "team:pdf", "sources": ["pg"]}], "sources": []}'');';

CREATE FUNCTION skill_system.preflight_skills_yaml(config text)
    RETURNS TABLE (code text, level text, message text, path text, details jsonb)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_preflight_skills_yaml' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.preflight_skills_yaml(text) IS
'As preflight_skills(), for YAML text. Plain scalars have the types of YAML 1.1, as the client reads them: no is false, 12:34 is 754. '
'CLI_CONFIG_LOAD_FAILED, with the line, is YAML that cannot be parsed. Raises 54000 for more than 1 MiB. Example: SELECT code, path FROM '
'skill_system.preflight_skills_yaml(''sources: [{id: pg, type: pgsql, options: {dsn_env: NO}}]'');';

CREATE FUNCTION skill_system.check_skill_bundle(
        zip bytea, max_bytes integer DEFAULT NULL, max_extracted_bytes integer DEFAULT NULL, max_files integer DEFAULT NULL,
        max_single_file_bytes integer DEFAULT NULL) RETURNS TABLE (path text, size integer, sha256 text)
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_check_skill_bundle' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.check_skill_bundle(bytea, integer, integer, integer, integer) IS
'The files of a zip bundle, if it conforms to the contract: nothing outside of actions/ and references/, no links, no duplicate names, at '
'most 1 MiB zipped, 16 times that inflated, 8 times in one file, 4096 files. An error''s detail is the client''s object {code, message, '
'details} as JSON. Raises 22023 for SKILL_BUNDLE_INVALID, 54000 for SKILL_BUNDLE_TOO_LARGE. Example: SELECT * FROM '
'skill_system.check_skill_bundle(pg_catalog.decode(''504b0506000000000000000000000000000000000000'', ''hex''));';

CREATE FUNCTION skill_system.register_skill_bundle(skill text, zip bytea, version text DEFAULT NULL) RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_register_skill_bundle' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.register_skill_bundle(text, bytea, text) IS
'Registers a new version: the body of an existing version, by default the newest, with the actions/ and references/ of the zip. It is a '
'draft until set_skill_status() approves it. The bundle is checked as by check_skill_bundle(). Raises SK404 and SK405 for what does not '
'exist, 42501 when an agent would restore a version that was approved before. Example: SELECT * FROM '
'skill_system.register_skill_bundle(''pdf-forms'', pg_catalog.decode(''504b0506000000000000000000000000000000000000'', ''hex''));';

CREATE FUNCTION skill_system.skill_bundle(skill text, version text DEFAULT NULL) RETURNS bytea
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_bundle' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_bundle(text, text) IS
'The actions/ and references/ of a version, by default of the served one, as a zip; the same files give the same bytes. NULL without '
'them. Raises SK404 and SK405 for what does not exist, 54000 when the zip exceeds 1 MiB. Example: SELECT '
'pg_catalog.sha256(skill_system.skill_bundle(''pdf-forms''));';

CREATE FUNCTION skill_system.redis_export(key_prefix text, namespace text DEFAULT NULL) RETURNS SETOF text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_redis_export' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.redis_export(text, text) IS
'The commands that fill a Redis cache with the enabled skills of a namespace, default all, and remove those that are no longer enabled: '
'psql -XAtc "SELECT skill_system.redis_export(''skills:'')" | redis-cli --pipe. One command a line, ASCII only, so bodies and bundles '
'arrive byte for byte; each skill is updated atomically. A skill that the client could not read is omitted with a WARNING. Raises 22023 '
'for a prefix with pattern characters, and when one namespace is below another, because the client would confuse them. Example: SELECT * '
'FROM skill_system.redis_export(''skills:'', ''team:pdf'');';

GRANT EXECUTE ON FUNCTION
    skill_system.resolve_mentions(text), skill_system.inject_skill(text, integer), skill_system.scan_skills(text, regclass),
    skill_system.preflight_skills(jsonb),
    skill_system.preflight_skills_yaml(text), skill_system.check_skill_bundle(bytea, integer, integer, integer, integer),
    skill_system.skill_bundle(text, text),
    skill_system.redis_export(text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.register_skill_bundle(text, bytea, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_admin;
-- The caller that creates the schema also creates the trigger.
GRANT EXECUTE ON FUNCTION
    skill_system.write_client_skill(), skill_system.create_client_schema(text, text), skill_system.drop_client_schema(text, text)
    TO skill_system_admin;
