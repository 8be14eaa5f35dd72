-- Skills: the registry. One set of tables and one history behind every client API (skill_store.sql, runtime_sdk.sql, agents.sql).

CREATE TABLE skill_system.skill_namespaces (
    tenant_id text   NOT NULL DEFAULT skill_system.current_tenant(),
    namespace text   NOT NULL COLLATE "C" CHECK (namespace OPERATOR(pg_catalog.<>) '' AND pg_catalog.length(namespace) <= 200),
    revision  bigint NOT NULL DEFAULT 0,
    accepts_store_signatures boolean NOT NULL DEFAULT false,
    dropped_at timestamptz,
    PRIMARY KEY (tenant_id, namespace)
);
COMMENT ON TABLE skill_system.skill_namespaces IS
'The namespaces that contain or contained skills. A namespace is created with its first skill. Changing a skill locks its namespace until '
'the transaction ends, so revision counts the changes in commit order.';
COMMENT ON COLUMN skill_system.skill_namespaces.tenant_id IS 'Tenant of the skills.';
COMMENT ON COLUMN skill_system.skill_namespaces.namespace IS 'Its name, compared byte by byte.';
COMMENT ON COLUMN skill_system.skill_namespaces.revision IS 'Number of the last change; skill_history describes it.';
COMMENT ON COLUMN skill_system.skill_namespaces.dropped_at IS
'When drop_skill_namespace() removed it; its revision stays, so that tokens and the history go on. NULL while it exists.';
COMMENT ON COLUMN skill_system.skill_namespaces.accepts_store_signatures IS
'The signatures in SkillStore bodies, which name neither skill nor tenant, approve here; see accept_store_signatures().';

CREATE TABLE skill_system.skill_heads (
    id                  uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id           text         NOT NULL DEFAULT skill_system.current_tenant(),
    namespace           text         NOT NULL COLLATE "C",
    skill_name          text         NOT NULL COLLATE "C"
        CHECK (skill_name OPERATOR(pg_catalog.<>) '' AND pg_catalog.length(skill_name) <= 200),
    description         text         NOT NULL DEFAULT '',
    enabled             boolean      NOT NULL,
    body_size           integer      NOT NULL,
    body_etag           text         NOT NULL,
    created_at          timestamptz  NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at          timestamptz  NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    required_env_vars   text[]       NOT NULL DEFAULT '{}',
    metadata            jsonb        NOT NULL DEFAULT '{}',
    scope               text,
    name                varchar(200),
    status              text         NOT NULL CHECK (status IN ('draft', 'approved', 'disabled')),
    domain_tags         varchar(100)[] NOT NULL DEFAULT '{}',
    effects             text[],
    manifest_id         text         COLLATE "C",
    tier1_manifest      jsonb,
    tier2_definition    jsonb,
    tier3_artifact_refs jsonb,
    context_mode        varchar(20)  NOT NULL DEFAULT 'reason_alongside'
        CHECK (context_mode::text IN ('reason_alongside', 'compute_and_return')),
    current_version_id  uuid         NOT NULL,
    current_version     text         NOT NULL,
    semver              text,
    pinned              boolean      NOT NULL DEFAULT false,
    defined             jsonb,
    deleted_at          timestamptz,
    PRIMARY KEY (tenant_id, id),
    CHECK (NOT enabled OR (status OPERATOR(pg_catalog.=) 'approved' AND deleted_at IS NULL)),
    FOREIGN KEY (tenant_id, namespace) REFERENCES skill_system.skill_namespaces (tenant_id, namespace)
);
CREATE UNIQUE INDEX skill_heads_name ON skill_system.skill_heads (namespace, skill_name, tenant_id) WHERE deleted_at IS NULL;
CREATE INDEX skill_heads_enabled ON skill_system.skill_heads (namespace, tenant_id) WHERE enabled;
CREATE INDEX skill_heads_manifest_id ON skill_system.skill_heads (manifest_id, tenant_id)
    WHERE deleted_at IS NULL AND manifest_id IS NOT NULL;
CREATE INDEX skill_heads_tags ON skill_system.skill_heads USING gin (domain_tags);
COMMENT ON TABLE skill_system.skill_heads IS
'One row per skill: its metadata and its current version. Bodies are in skill_versions, so reading this table never reads a body. Read '
'the view skills; write with register_skill(), set_skill_status() and related functions.';
COMMENT ON COLUMN skill_system.skill_heads.id IS 'UUID of the skill; stays through all versions.';
COMMENT ON COLUMN skill_system.skill_heads.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_heads.namespace IS 'Namespace of the skill.';
COMMENT ON COLUMN skill_system.skill_heads.skill_name IS
'Its name, unique in the namespace among skills that are not deleted; compared byte by byte.';
COMMENT ON COLUMN skill_system.skill_heads.name IS 'Display name; NULL if none was given.';
COMMENT ON COLUMN skill_system.skill_heads.description IS 'What it does and when to use it.';
COMMENT ON COLUMN skill_system.skill_heads.status IS 'Status of the current version: draft, approved or disabled.';
COMMENT ON COLUMN skill_system.skill_heads.enabled IS 'Clients may load it. Only an approved skill can be enabled; approval enables it.';
COMMENT ON COLUMN skill_system.skill_heads.scope IS 'Free text for clients that distinguish scopes.';
COMMENT ON COLUMN skill_system.skill_heads.required_env_vars IS 'Names of the environment variables it requires.';
COMMENT ON COLUMN skill_system.skill_heads.metadata IS 'Other metadata.';
COMMENT ON COLUMN skill_system.skill_heads.domain_tags IS 'Labels for matching and search.';
COMMENT ON COLUMN skill_system.skill_heads.effects IS
'Effects that the current version declares; check_skill() checks them against a policy. NULL: it declares nothing, and unknown effects '
'are never allowed. {}: it declares that it has none.';
COMMENT ON COLUMN skill_system.skill_heads.manifest_id IS
'The id in the manifest of the current version; log_run() also finds the skill by it.';
COMMENT ON COLUMN skill_system.skill_heads.tier1_manifest IS 'What a catalogue shows, if it was given; NULL: name, description and tags.';
COMMENT ON COLUMN skill_system.skill_heads.tier2_definition IS
'The specification that is loaded on selection, if it was given; NULL: the body.';
COMMENT ON COLUMN skill_system.skill_heads.tier3_artifact_refs IS 'References to artifacts, if they were given; NULL: skill_artifacts.';
COMMENT ON COLUMN skill_system.skill_heads.context_mode IS 'reason_alongside or compute_and_return.';
COMMENT ON COLUMN skill_system.skill_heads.current_version_id IS 'The version that is served.';
COMMENT ON COLUMN skill_system.skill_heads.current_version IS 'Its version: 12 hexadecimal digits.';
COMMENT ON COLUMN skill_system.skill_heads.semver IS 'Its semantic version, from the manifest.';
COMMENT ON COLUMN skill_system.skill_heads.body_size IS 'Bytes of its body.';
COMMENT ON COLUMN skill_system.skill_heads.body_etag IS 'SHA-256 of its body, 64 hexadecimal digits.';
COMMENT ON COLUMN skill_system.skill_heads.pinned IS 'New versions do not become current by themselves; see pin_skill().';
COMMENT ON COLUMN skill_system.skill_heads.defined IS
'name and domain_tags as define_skill() gave them: they take precedence over those of versions. NULL: none were given.';
COMMENT ON COLUMN skill_system.skill_heads.created_at IS 'When the skill was registered.';
COMMENT ON COLUMN skill_system.skill_heads.updated_at IS 'When it was changed last.';
COMMENT ON COLUMN skill_system.skill_heads.deleted_at IS 'When it was deleted; its versions and history stay.';

CREATE TABLE skill_system.skill_versions (
    id             uuid        NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id      text        NOT NULL DEFAULT skill_system.current_tenant(),
    skill_id       uuid        NOT NULL,
    revision       bigint      NOT NULL,
    version        text        NOT NULL COLLATE "C" CHECK (version ~ '^[0-9a-f]{12}$'),
    digest         text        NOT NULL COLLATE "C" CHECK (digest ~ '^[0-9a-f]{64}$'),
    content_hash   text        NOT NULL COLLATE "C" CHECK (content_hash ~ '^[0-9a-f]{64}$'),
    semver         text        COLLATE "C",
    status         text        NOT NULL CHECK (status IN ('draft', 'approved', 'disabled')),
    body           text        NOT NULL,
    body_size      integer     NOT NULL,
    about          jsonb       NOT NULL,
    frontmatter    jsonb,
    manifest       jsonb,
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_by     text        NOT NULL,
    review_id      uuid        NOT NULL DEFAULT skill_system.uuid_v7(),
    archive_digest text        COLLATE "C" CHECK (archive_digest ~ '^[0-9a-f]{64}$'),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT skill_versions_tenant_id_skill_id_version_key UNIQUE (skill_id, version, tenant_id),
    FOREIGN KEY (tenant_id, skill_id) REFERENCES skill_system.skill_heads (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX skill_versions_revision ON skill_system.skill_versions (skill_id, revision, tenant_id);
COMMENT ON TABLE skill_system.skill_versions IS
'Every version of every skill, body and all. Only the status of a row ever changes, and review_id with it. Registering the same content '
'again returns the same '
'version. Read with export_skill(), skill_store_load() or the view skills (current versions).';
COMMENT ON COLUMN skill_system.skill_versions.id IS 'UUID of the version; runs.skill_version_id is this.';
COMMENT ON COLUMN skill_system.skill_versions.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_versions.skill_id IS 'Skill it is a version of.';
COMMENT ON COLUMN skill_system.skill_versions.revision IS
'Revision of the namespace with which it was first registered; orders the versions of a skill, also within one transaction.';
COMMENT ON COLUMN skill_system.skill_versions.version IS 'First 12 digits of digest.';
COMMENT ON COLUMN skill_system.skill_versions.digest IS
'Identity of the version: content_hash if the version has no files, else a SHA-256 over the body''s and every file''s path, size and '
'SHA-256.';
COMMENT ON COLUMN skill_system.skill_versions.content_hash IS 'SHA-256 of the body''s bytes, 64 hexadecimal digits.';
COMMENT ON COLUMN skill_system.skill_versions.semver IS
'Semantic version from the manifest, or from metadata.version of the front matter; NULL if none exists.';
COMMENT ON COLUMN skill_system.skill_versions.status IS 'draft, approved or disabled; skill_history has the changes.';
COMMENT ON COLUMN skill_system.skill_versions.body IS 'The text as it came, byte for byte.';
COMMENT ON COLUMN skill_system.skill_versions.body_size IS 'Bytes of the body.';
COMMENT ON COLUMN skill_system.skill_versions.about IS
'The metadata that skill_heads has while this version is current: description, metadata, domain_tags, effects and the like.';
COMMENT ON COLUMN skill_system.skill_versions.frontmatter IS
'The front matter of a SKILL.md, every scalar as text; NULL for other formats.';
COMMENT ON COLUMN skill_system.skill_versions.manifest IS
'The skill-manifest block: id, version, capabilities, effects, operations; NULL if none exists.';
COMMENT ON COLUMN skill_system.skill_versions.created_at IS 'When it was registered first.';
COMMENT ON COLUMN skill_system.skill_versions.created_by IS 'Who registered it first.';
COMMENT ON COLUMN skill_system.skill_versions.archive_digest IS
'SHA-256 of export_skill_archive(), computed once for skills_discovery_index(); NULL if the version has no files.';
COMMENT ON COLUMN skill_system.skill_versions.review_id IS
'Part of skill_approval_text(): another one whenever the version becomes a draft or disabled, so that no signature holds twice.';

CREATE TABLE skill_system.skill_files (
    tenant_id  text    NOT NULL DEFAULT skill_system.current_tenant(),
    version_id uuid    NOT NULL,
    path       text    NOT NULL COLLATE "C",
    content    bytea   NOT NULL,
    size       integer NOT NULL,
    sha256     text    NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    PRIMARY KEY (tenant_id, version_id, path),
    FOREIGN KEY (tenant_id, version_id) REFERENCES skill_system.skill_versions (tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE skill_system.skill_files IS
'The files of a version in addition to its body: scripts, references, assets, actions. A row never changes. Written by register_skill() '
'and register_skill_bundle().';
COMMENT ON COLUMN skill_system.skill_files.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_files.version_id IS 'Version it belongs to.';
COMMENT ON COLUMN skill_system.skill_files.path IS
'Path below the skill''s directory, with /; never absolute, never with . or .. segments.';
COMMENT ON COLUMN skill_system.skill_files.content IS 'Its bytes.';
COMMENT ON COLUMN skill_system.skill_files.size IS 'Number of bytes.';
COMMENT ON COLUMN skill_system.skill_files.sha256 IS 'SHA-256 of the bytes, 64 hexadecimal digits.';

CREATE TABLE skill_system.skill_history (
    tenant_id       text        NOT NULL DEFAULT skill_system.current_tenant(),
    namespace       text        NOT NULL COLLATE "C",
    revision        bigint      NOT NULL,
    skill_id        uuid        NOT NULL,
    skill_name      text        NOT NULL COLLATE "C",
    action          text        NOT NULL
        CHECK (action IN ('registered', 'status', 'current', 'changed', 'deleted', 'pinned', 'unpinned', 'channel')),
    version_id      uuid,
    version         text,
    previous_status text,
    status          text,
    changed_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed_by      text        NOT NULL,
    reason          text,
    approved_with   text,
    channel         text,
    PRIMARY KEY (tenant_id, namespace, revision)
);
CREATE INDEX skill_history_skill ON skill_system.skill_history (tenant_id, skill_id, revision);
COMMENT ON TABLE skill_system.skill_history IS
'Every change of every skill, append-only; it is kept when skills are deleted. Each change is also an audit record.';
COMMENT ON COLUMN skill_system.skill_history.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_history.namespace IS 'Namespace of the skill.';
COMMENT ON COLUMN skill_system.skill_history.revision IS 'Counts from 1 in the namespace, in the order of the commits.';
COMMENT ON COLUMN skill_system.skill_history.skill_id IS 'The skill.';
COMMENT ON COLUMN skill_system.skill_history.skill_name IS 'Its name at that time.';
COMMENT ON COLUMN skill_system.skill_history.action IS
'registered: a new version; status: a version has another status; current: another version is served; changed: the metadata changed; '
'deleted; pinned and unpinned; channel: a channel has another version, or none.';
COMMENT ON COLUMN skill_system.skill_history.version_id IS 'Version it is about.';
COMMENT ON COLUMN skill_system.skill_history.version IS 'Its version.';
COMMENT ON COLUMN skill_system.skill_history.previous_status IS
'Status of the version, or of the skill if its content changed, before the change.';
COMMENT ON COLUMN skill_system.skill_history.status IS 'Status after the change.';
COMMENT ON COLUMN skill_system.skill_history.changed_at IS 'When.';
COMMENT ON COLUMN skill_system.skill_history.changed_by IS 'Who.';
COMMENT ON COLUMN skill_system.skill_history.reason IS 'Reason, if one was given.';
COMMENT ON COLUMN skill_system.skill_history.approved_with IS 'Key id and signature of a signed approval.';
COMMENT ON COLUMN skill_system.skill_history.channel IS 'The channel, for changes of a channel.';

CREATE TABLE skill_system.skill_approvers (
    tenant_id  text        NOT NULL DEFAULT skill_system.current_tenant(),
    key_id     text        NOT NULL COLLATE "C" CHECK (key_id ~ '^[0-9a-f]{16}$'),
    public_key bytea       NOT NULL CHECK (pg_catalog.length(public_key) OPERATOR(pg_catalog.=) 32),
    approver   text        NOT NULL,
    added_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    added_by   text        NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, key_id)
);
COMMENT ON TABLE skill_system.skill_approvers IS
'Ed25519 public keys whose signatures approve skills. Written by add_skill_approver() and revoke_skill_approver(). Private keys are never '
'stored.';
COMMENT ON COLUMN skill_system.skill_approvers.tenant_id IS 'Tenant whose skills it may approve.';
COMMENT ON COLUMN skill_system.skill_approvers.key_id IS 'First 16 hexadecimal digits of the key''s SHA-256.';
COMMENT ON COLUMN skill_system.skill_approvers.public_key IS 'The 32 bytes of the key (RFC 8032).';
COMMENT ON COLUMN skill_system.skill_approvers.approver IS 'Whose key it is.';
COMMENT ON COLUMN skill_system.skill_approvers.added_at IS 'When it was added.';
COMMENT ON COLUMN skill_system.skill_approvers.added_by IS 'Who added it.';
COMMENT ON COLUMN skill_system.skill_approvers.revoked_at IS
'From when on its signatures are not accepted; approvals made before remain valid.';

CREATE TRIGGER skill_versions_guard BEFORE UPDATE ON skill_system.skill_versions
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_columns('status', 'review_id');
CREATE FUNCTION skill_system.guard_decision() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_decision' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.guard_decision() IS
'Trigger function of skill_heads and skill_versions: whichever way a change comes, only members of skill_system_reviewer and '
'skill_system_admin approve, and change what was approved or disabled. Raises 42501.';
CREATE TRIGGER skill_heads_decision BEFORE INSERT OR UPDATE OR DELETE ON skill_system.skill_heads
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_decision();
CREATE TRIGGER skill_versions_decision BEFORE INSERT OR UPDATE OR DELETE ON skill_system.skill_versions
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_decision();
CREATE TRIGGER skill_files_guard BEFORE UPDATE ON skill_system.skill_files
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER skill_history_no_change BEFORE UPDATE OR DELETE ON skill_system.skill_history
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER skill_history_no_truncate BEFORE TRUNCATE ON skill_system.skill_history
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER skill_approvers_guard BEFORE UPDATE ON skill_system.skill_approvers
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_columns('revoked_at');

CREATE VIEW skill_system.skills WITH (security_invoker = true) AS
SELECT h.id, h.namespace, h.skill_name, h.description,
    (SELECT v.body FROM skill_system.skill_versions v
        WHERE v.tenant_id OPERATOR(pg_catalog.=) h.tenant_id AND v.id OPERATOR(pg_catalog.=) h.current_version_id) AS body,
    h.enabled, h.scope, h.required_env_vars, h.metadata, h.body_size, h.body_etag, h.created_at, h.updated_at,
    h.tenant_id, h.name, h.status, h.current_version, h.semver, h.domain_tags, h.effects, h.manifest_id,
    h.tier1_manifest, h.tier2_definition, h.tier3_artifact_refs, h.context_mode, h.pinned, h.current_version_id
FROM skill_system.skill_heads h
WHERE h.deleted_at IS NULL;
COMMENT ON VIEW skill_system.skills IS
'The skills that are not deleted, each with its current version. The statements of skills-runtime-sdk work on it unchanged. body is only '
'read when it is selected. Example: SELECT namespace, skill_name, status, current_version FROM skill_system.skills;';
COMMENT ON COLUMN skill_system.skills.id IS 'UUID of the skill; stays through all versions.';
COMMENT ON COLUMN skill_system.skills.namespace IS 'Namespace of the skill.';
COMMENT ON COLUMN skill_system.skills.skill_name IS 'Its name, unique in the namespace.';
COMMENT ON COLUMN skill_system.skills.description IS 'What it does and when to use it.';
COMMENT ON COLUMN skill_system.skills.body IS 'Body of the current version, byte for byte.';
COMMENT ON COLUMN skill_system.skills.enabled IS 'Clients may load it: it is approved and not disabled.';
COMMENT ON COLUMN skill_system.skills.scope IS 'Free text for clients that distinguish scopes.';
COMMENT ON COLUMN skill_system.skills.required_env_vars IS 'Names of the environment variables it requires.';
COMMENT ON COLUMN skill_system.skills.metadata IS 'Other metadata.';
COMMENT ON COLUMN skill_system.skills.body_size IS 'Bytes of the body.';
COMMENT ON COLUMN skill_system.skills.body_etag IS 'SHA-256 of the body, 64 hexadecimal digits.';
COMMENT ON COLUMN skill_system.skills.created_at IS 'When the skill was registered.';
COMMENT ON COLUMN skill_system.skills.updated_at IS 'When it was changed last.';
COMMENT ON COLUMN skill_system.skills.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skills.name IS 'Display name; NULL if none was given.';
COMMENT ON COLUMN skill_system.skills.status IS 'Status of the current version: draft, approved or disabled.';
COMMENT ON COLUMN skill_system.skills.current_version IS 'The version that is served: 12 hexadecimal digits.';
COMMENT ON COLUMN skill_system.skills.semver IS 'Its semantic version.';
COMMENT ON COLUMN skill_system.skills.domain_tags IS 'Labels for matching and search.';
COMMENT ON COLUMN skill_system.skills.effects IS
'Effects that it declares; NULL if it declares nothing, {} if it declares that it has none.';
COMMENT ON COLUMN skill_system.skills.manifest_id IS 'The id in its manifest.';
COMMENT ON COLUMN skill_system.skills.tier1_manifest IS 'What a catalogue shows, if it was given.';
COMMENT ON COLUMN skill_system.skills.tier2_definition IS 'The specification that is loaded on selection, if it was given.';
COMMENT ON COLUMN skill_system.skills.tier3_artifact_refs IS 'References to artifacts, if they were given.';
COMMENT ON COLUMN skill_system.skills.context_mode IS 'reason_alongside or compute_and_return.';
COMMENT ON COLUMN skill_system.skills.pinned IS 'New versions do not become current by themselves.';
COMMENT ON COLUMN skill_system.skills.current_version_id IS 'UUID of the version that is served.';

CREATE TYPE skill_system.skill_state AS (
    skill_id uuid, namespace text, skill_name text, version text, status text, current_version text, version_id uuid, content_hash text,
    semver text, created boolean);
COMMENT ON TYPE skill_system.skill_state IS
'Result of register_skill() and related functions: the skill, the version concerned, its status, the version served now, and whether the '
'version is new.';

CREATE FUNCTION skill_system.set_skill_status(
        skill text, status text, version text DEFAULT NULL, signature text DEFAULT NULL, reason text DEFAULT NULL)
    RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_set_skill_status' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.set_skill_status(text, text, text, text, text) IS
'Approves or disables a version of a skill, or turns it back into a draft. skill is a name in the namespace default, namespace/name or a '
'UUID; version is 12 digits, must be given to approve, and is the served version by default otherwise. An approved version becomes the '
'served one, unless the skill is pinned. With skill_system.signed_approvals on, approved needs the signature of a registered approver '
'over skill_approval_text(). Raises SK404 and SK405 for what does not exist, SK403 for a missing or invalid signature, 22023 for another '
'status or an approval without a version. Task 20: Approve a skill. Example: SELECT * FROM skill_system.set_skill_status(''pdf-forms'', '
'''approved'', ''<version>'');';

CREATE FUNCTION skill_system.skill_approval_text(skill text, version text DEFAULT NULL) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_approval_text' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_approval_text(text, text) IS
'The bytes that an approver signs with Ed25519 to approve a version, by default the newest: JSON with log_id, tenant, namespace, '
'skill_name, digest (of body and files, as in skill_versions), metadata_digest (of tags, description and all else that is served) and the '
'version''s review_id, so the signature is valid for nothing else and only once. Pass the signature to set_skill_status() as v1: followed '
'by base64url. Raises SK404, SK405. Example: SELECT skill_system.skill_approval_text(''pdf-forms'');';

CREATE FUNCTION skill_system.add_skill_approver(public_key text, approver text) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_add_skill_approver' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.add_skill_approver(text, text) IS
'Lets the owner of an Ed25519 key approve skills of this tenant; returns the key id. The key comes as PEM (RFC 8410) or as 64 hexadecimal '
'digits. Raises 22023 for anything else. Example: SELECT '
'skill_system.add_skill_approver(''d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'', ''alice'');';

CREATE FUNCTION skill_system.revoke_skill_approver(key_id text) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_revoke_skill_approver' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.revoke_skill_approver(text) IS
'From now on signatures of this key are not accepted; false when it was already revoked. Versions it approved stay approved. Raises 42704 '
'for an unknown key. Example: SELECT skill_system.revoke_skill_approver(''21fe31dfa154a261'');';

CREATE FUNCTION skill_system.delete_skill(skill text, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_delete_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.delete_skill(text, text) IS
'Removes a skill from every catalogue and frees its name. Its versions and history are kept; export_skill() still finds them by the '
'skill''s UUID. Raises SK404. Example: SELECT skill_system.delete_skill(''pdf-forms'', ''replaced by forms'');';

CREATE FUNCTION skill_system.accept_store_signatures(namespace text, accept boolean) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_accept_store_signatures' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.accept_store_signatures(text, boolean) IS
'Whether the header "# Status: Approved v3:" of SkillStore bodies approves in this namespace, as that contract has it: such a signature '
'names neither skill, namespace nor tenant, and holds again after it was taken back. Off until an administrator calls this. False when '
'nothing changed. Raises 22023 for an invalid namespace. Example: SELECT skill_system.accept_store_signatures(''skillscript'', true);';

CREATE FUNCTION skill_system.drop_skill_namespace(namespace text, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_drop_skill_namespace' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.drop_skill_namespace(text, text) IS
'Removes a namespace with all its skills and their versions for good; skill_history and the audit trail keep the record of them, and a '
'namespace of this name that comes later goes on with its revisions. A tenant has at most 1000 namespaces. False when it does not exist. '
'Raises 55000 while it contains an approved skill. Example: SELECT skill_system.drop_skill_namespace(''team:old'', ''moved'');';

GRANT USAGE ON TYPE skill_system.skill_state TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT SELECT ON skill_system.skill_namespaces, skill_system.skill_heads, skill_system.skill_versions, skill_system.skill_files,
    skill_system.skill_history, skill_system.skill_approvers, skill_system.skills
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.skill_approval_text(text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- Agents register, reviewers and administrators approve.
GRANT EXECUTE ON FUNCTION skill_system.set_skill_status(text, text, text, text, text) TO skill_system_reviewer, skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.add_skill_approver(text, text), skill_system.revoke_skill_approver(text), skill_system.delete_skill(text, text),
    skill_system.accept_store_signatures(text, boolean), skill_system.drop_skill_namespace(text, text)
    TO skill_system_admin;
