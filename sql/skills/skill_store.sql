-- Skills: the adapter for skillscript's SkillStore.

CREATE FUNCTION skill_system.skill_store_load(name text, version text DEFAULT NULL, namespace text DEFAULT 'skillscript') RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_store_load' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_load(text, text, text) IS
'SkillStore load(): a SkillSource with name, version, content_hash, source (byte for byte) and metadata. An older version comes with its '
'own bytes and the current metadata. Raises SK404 (SkillNotFoundError), SK405 (VersionNotFoundError); DETAIL is JSON with error, '
'connector_type and implementation. Example: SELECT skill_system.skill_store_load(''hello'')->>''source'';';

CREATE FUNCTION skill_system.skill_store_query(filter jsonb DEFAULT NULL, namespace text DEFAULT 'skillscript') RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_store_query' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_query(jsonb, text) IS
'SkillStore query(): an array of SkillMeta in the order of the names'' bytes. filter may have status, tag (all of them), author, since '
'(unix seconds), name_pattern (a regular expression found anywhere in the name, without look-around), and then limit and offset. No body '
'is read. Raises 22023 for a filter that cannot be read, 54000 for a pattern that is too large. Example: SELECT '
'skill_system.skill_store_query(''{"status": "Approved", "tag": ["ops"], "limit": 10}'');';

CREATE FUNCTION skill_system.skill_store_metadata(name text, namespace text DEFAULT 'skillscript') RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_store_metadata' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_metadata(text, text) IS
'SkillStore metadata(): a SkillMeta with name, version, content_hash, status, created_at, updated_at (unix seconds) and, where known, '
'description, status_changed_at, author and metadata_bag. Raises SK404 (SkillNotFoundError). Example: SELECT '
'skill_system.skill_store_metadata(''hello'')->>''status'';';

CREATE FUNCTION skill_system.skill_store_versions(name text, namespace text DEFAULT 'skillscript') RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_store_versions' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_versions(text, text) IS
'SkillStore versions(): an array of VersionInfo, one for each version, ordered by the second of its last change, within a second by age. '
'skill_history has every change. Raises SK404 (SkillNotFoundError). Example: SELECT v->>''version'', v->>''status'' FROM '
'jsonb_array_elements(skill_system.skill_store_versions(''hello'')) v;';

CREATE FUNCTION skill_system.skill_store_store(name text, source text, metadata jsonb DEFAULT NULL, namespace text DEFAULT 'skillscript')
    RETURNS jsonb
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_skill_store_store' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_store(text, text, jsonb, text) IS
'SkillStore store(): stores a body as the served version and returns its VersionInfo. metadata may have status, description, author and '
'metadata_bag; it replaces the previous metadata. The status is that of metadata, else of the header "# Status:", else Draft. Approved '
'becomes Draft, in the body too, for a caller that may not approve, and with skill_system.signed_approvals on for a body without a '
'signature that counts, see accept_store_signatures(). For a caller that may not approve, what was approved or disabled stays served, and '
'the new version waits, unless skill_system.single_user_store is on. Raises SK409 (StorageConflictError) for a name that cannot be '
'stored or a pinned skill, 22023 for '
'metadata that cannot be read, 54000 for a body above 16 MiB. Example: SELECT skill_system.skill_store_store(''hello'', E''# Skill: '
'hello\n# Status: Draft\n'', ''{"author": "alice"}'');';

CREATE FUNCTION skill_system.skill_store_update_status(
        name text, status text, namespace text DEFAULT 'skillscript', version text DEFAULT NULL) RETURNS jsonb
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_skill_store_update_status' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_update_status(text, text, text, text) IS
'SkillStore update_status(): gives a version, by default the served one, another status and returns its VersionInfo with '
'previous_status. Approved needs version, unless skill_system.single_user_store is on. The header "# Status:" is rewritten, so body, '
'content_hash and version change; a body with a valid signature is approved unchanged where accept_store_signatures() is on. Raises 22023 '
'unless status is Draft, Approved or Disabled, SK404 (SkillNotFoundError), SK405 (VersionNotFoundError), SK403 (ApprovalRejectedError) '
'when the caller may not approve, version is missing or, with skill_system.signed_approvals on, a valid signature is missing, SK409 '
'(StorageConflictError) when the caller may not change what was decided. Example: SELECT '
'skill_system.skill_store_update_status(''hello'', ''Approved'', version => ''0d53f1dbd1e6'');';

CREATE FUNCTION skill_system.skill_store_delete(name text, namespace text DEFAULT 'skillscript') RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_skill_store_delete' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_delete(text, text) IS
'SkillStore delete(): removes a skill with all its versions permanently and frees the name. skill_history and the audit trail keep the '
'record of it. delete_skill() keeps the versions. Raises SK404 (SkillNotFoundError). Example: SELECT '
'skill_system.skill_store_delete(''hello'');';

CREATE FUNCTION skill_system.skill_store_version(namespace text DEFAULT 'skillscript') RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_store_version' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_store_version(text) IS
'SkillStore version(): 16 hexadecimal digits that change whenever a skill is added, removed or gets another status or version. A session '
'computes it once for each change and caches it, so polling is cheap. Example: SELECT skill_system.skill_store_version();';

CREATE FUNCTION skill_system.skill_store_manifest(namespace text DEFAULT 'skillscript') RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT jsonb_build_object('capabilities_version', '1', 'manifest', jsonb_build_object(
        'kind', 'postgresql', 'schema', 'skill_system', 'namespace', skill_store_manifest.namespace,
        'tag_filter_note', 'metadata_bag.tags', 'name_pattern_note', 'regular expression without look-around and back-references'));
END;
COMMENT ON FUNCTION skill_system.skill_store_manifest(text) IS
'SkillStore manifest(): what kind of store this is. Example: SELECT skill_system.skill_store_manifest()->''manifest''->>''kind'';';

CREATE FUNCTION skill_system.skill_store_static_capabilities() RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT jsonb_build_object('connector_type', 'skill_store', 'implementation', 'SkillSystemStore', 'contract_version', '1.0.0',
        'features', jsonb_build_object('supports_writes', true, 'supports_versioning', true, 'supports_tag_filter', true,
            'supports_audit_trail', true, 'supports_atomic_status_transitions', true));
END;
COMMENT ON FUNCTION skill_system.skill_store_static_capabilities() IS
'SkillStore staticCapabilities(): what this store can do, whatever is in it. Example: SELECT '
'skill_system.skill_store_static_capabilities()->''features'';';

GRANT EXECUTE ON FUNCTION
    skill_system.skill_store_load(text, text, text), skill_system.skill_store_query(jsonb, text),
    skill_system.skill_store_metadata(text, text),
    skill_system.skill_store_versions(text, text), skill_system.skill_store_version(text), skill_system.skill_store_manifest(text),
    skill_system.skill_store_static_capabilities()
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- A skill that an agent stores as Approved becomes Draft.
GRANT EXECUTE ON FUNCTION
    skill_system.skill_store_store(text, text, jsonb, text), skill_system.skill_store_update_status(text, text, text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.skill_store_delete(text, text) TO skill_system_admin;
