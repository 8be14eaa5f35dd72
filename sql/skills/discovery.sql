-- Skills: formats that other systems read. Only enabled skills are shown.

CREATE FUNCTION skill_system.available_skills_prompt(namespace text DEFAULT 'default', policy_name text DEFAULT NULL) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_available_skills_prompt' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.available_skills_prompt(text, text) IS
'The block <available_skills> for a system prompt: name, description and location of each enabled skill, with HTML escapes; an empty '
'string if none exist. With a policy only skills that check_skill() allows are in it; an unknown policy allows none. Skills with '
'disable-model-invocation: true in their front matter are left out. Raises 22023 for an invalid namespace. Example: SELECT '
'skill_system.available_skills_prompt(''default'', ''dev'');';

CREATE FUNCTION skill_system.skills_discovery_index(base_url text, policy_name text DEFAULT NULL, namespace text DEFAULT 'default')
    RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skills_discovery_index' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skills_discovery_index(text, text, text) IS
'The discovery index 0.2.0 for /.well-known/agent-skills/index.json. A skill of one file has the type skill-md and the URL '
'base_url/<name>/SKILL.md, to be served from export_skill(); one with more files has the type archive and base_url/<name>.zip, to be '
'served from export_skill_archive(). Skills whose name or description the format cannot represent are omitted. Raises 22023 for an '
'invalid base_url or namespace. Example: SELECT skill_system.skills_discovery_index(''/.well-known/agent-skills'');';

CREATE FUNCTION skill_system.export_skill_archive(skill text, version text DEFAULT NULL) RETURNS bytea
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_export_skill_archive' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.export_skill_archive(text, text) IS
'All files of a version as a zip with SKILL.md at its root, by default of the served version; the same files give the same bytes. '
'skills_discovery_index() contains its digest. Raises SK404 and SK405 if the skill or version does not exist. Example: SELECT '
'length(skill_system.export_skill_archive(''pdf-forms''));';

CREATE FUNCTION skill_system.mcp_skills_list(
        cursor text DEFAULT NULL, max_rows integer DEFAULT 100, namespace text DEFAULT 'default', policy_name text DEFAULT NULL)
    RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_mcp_skills_list' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.mcp_skills_list(text, integer, text, text) IS
'Result of the method skills/list of MCP (extension io.modelcontextprotocol/skills): skills with uri, frontmatter and resources, ttlMs, '
'cacheScope, and nextCursor if more follow, to be passed as cursor. max_rows is 1 to 500. Front matter fields outside of the '
'specification are omitted, since clients reject a whole page for one invalid entry. Serve resources/read from export_skill_files(). '
'Raises 22023 for an invalid cursor, max_rows or namespace. Example: SELECT skill_system.mcp_skills_list(max_rows => 10);';

CREATE FUNCTION skill_system.mcp_skills_get(uri text, policy_name text DEFAULT NULL) RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_mcp_skills_get' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.mcp_skills_get(text, text) IS
'Result of the method skills/get of MCP for the URI of a SKILL.md, skill://<namespace>/<name>/SKILL.md. Raises SK404 for a skill that is '
'not served: unknown, not enabled, or hidden by the policy. Example: SELECT skill_system.mcp_skills_get(uri) FROM (SELECT '
'skill_system.mcp_skills_list()->''skills''->0->>''uri'') AS first (uri) WHERE uri IS NOT NULL;';

CREATE FUNCTION skill_system.skills_index(namespace text DEFAULT 'default', policy_name text DEFAULT NULL) RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skills_index' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skills_index(text, text) IS
'The index that the router of the skill-system-postgres skill reads: by manifest id the directory, version, capabilities, effects and '
'operations with the names of their parameters, and by capability the ids. Skills without a manifest are omitted. Raises 22023 for an '
'invalid namespace. Example: SELECT skill_system.skills_index()->''capability_index'';';

GRANT EXECUTE ON FUNCTION
    skill_system.available_skills_prompt(text, text), skill_system.skills_discovery_index(text, text, text),
    skill_system.export_skill_archive(text, text),
    skill_system.mcp_skills_list(text, integer, text, text), skill_system.mcp_skills_get(text, text), skill_system.skills_index(text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
