-- Versions: dependencies, pins, channels, differences, changes; which version a run used.

CREATE TABLE skill_system.skill_dependencies (
    tenant_id     text NOT NULL DEFAULT skill_system.current_tenant(),
    version_id    uuid NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('requires', 'conflicts')),
    namespace     text NOT NULL COLLATE "C",
    skill_name    text NOT NULL COLLATE "C",
    version_range text,
    PRIMARY KEY (tenant_id, version_id, kind, namespace, skill_name),
    FOREIGN KEY (tenant_id, version_id) REFERENCES skill_system.skill_versions (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX skill_dependencies_skill ON skill_system.skill_dependencies (tenant_id, namespace, skill_name);
COMMENT ON TABLE skill_system.skill_dependencies IS
'What a version declares about other skills: requires and conflicts of its manifest. Written when the version is registered; a row never '
'changes. Read with check_dependencies() and resolve_dependencies().';
COMMENT ON COLUMN skill_system.skill_dependencies.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_dependencies.version_id IS 'Version that declares it.';
COMMENT ON COLUMN skill_system.skill_dependencies.kind IS
'requires: it does not work without the other skill; conflicts: it does not work together with it.';
COMMENT ON COLUMN skill_system.skill_dependencies.namespace IS
'Namespace of the other skill; that of the skill itself if the manifest does not give one.';
COMMENT ON COLUMN skill_system.skill_dependencies.skill_name IS 'Name of the other skill, which need not exist.';
COMMENT ON COLUMN skill_system.skill_dependencies.version_range IS 'Which of its versions, as in resolve_skill(); NULL is any.';

CREATE TABLE skill_system.skill_channels (
    tenant_id  text        NOT NULL DEFAULT skill_system.current_tenant(),
    skill_id   uuid        NOT NULL,
    channel    text        NOT NULL COLLATE "C" CHECK (channel ~ '^[a-z][a-z0-9-]*$' AND pg_catalog.length(channel) <= 50),
    version_id uuid        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed_by text        NOT NULL,
    PRIMARY KEY (tenant_id, skill_id, channel),
    FOREIGN KEY (tenant_id, skill_id) REFERENCES skill_system.skill_heads (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, version_id) REFERENCES skill_system.skill_versions (tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE skill_system.skill_channels IS
'Names for a version of a skill: stable, beta or any other. Written by set_skill_channel() and drop_skill_channel(); resolve_skill() '
'accepts them.';
COMMENT ON COLUMN skill_system.skill_channels.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_channels.skill_id IS 'The skill.';
COMMENT ON COLUMN skill_system.skill_channels.channel IS 'Name of the channel.';
COMMENT ON COLUMN skill_system.skill_channels.version_id IS 'Version that it refers to.';
COMMENT ON COLUMN skill_system.skill_channels.changed_at IS 'Since when.';
COMMENT ON COLUMN skill_system.skill_channels.changed_by IS 'Who set it.';

CREATE TRIGGER skill_dependencies_guard BEFORE UPDATE ON skill_system.skill_dependencies
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();

CREATE FUNCTION skill_system.skills_changed() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_skills_changed' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skills_changed() IS
'Trigger function of skill_heads: invalidates in every session the version that log_run() links to.';
CREATE TRIGGER skill_heads_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON skill_system.skill_heads
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.skills_changed();

CREATE TYPE skill_system.skill_resolution
    AS (skill_id uuid, version_id uuid, version text, semver text, status text, namespace text, skill_name text);
COMMENT ON TYPE skill_system.skill_resolution IS 'Result of resolve_skill(): the version that satisfies a requirement, and its skill.';

CREATE FUNCTION skill_system.resolve_skill(skill text, requirement text DEFAULT NULL) RETURNS skill_system.skill_resolution
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_resolve_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.resolve_skill(text, text) IS
'The version of a skill to load. requirement is a range of semantic versions as Cargo reads it (^1.2, ~1.2, ">=1, <3"; the highest '
'approved version in it, a prerelease only if the range contains one), a complete semantic version, which matches only itself, the 12 '
'digits of a version, or a channel; NULL is the served version. Only approved versions of a skill that is not disabled are returned. '
'Raises SK404 for an unknown skill, SK405 listing the available versions, 22023 for an invalid requirement. Example: SELECT version, '
'semver FROM skill_system.resolve_skill(''pdf-forms'', ''^1.2'');';

CREATE FUNCTION skill_system.resolve_dependencies(VARIADIC skills text[])
    RETURNS TABLE (depth integer, namespace text, skill_name text, version text, semver text, required_by text, skill_id uuid,
        version_id uuid)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_resolve_dependencies' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.resolve_dependencies(text[]) IS
'Everything that must be loaded for some skills: the skills and their requirements, each in one version. Pass a skill name for the served '
'version, or skill@requirement. For each skill the highest approved version that satisfies all requirements found so far is chosen, '
'without backtracking. Raises SK409 when check_dependencies() reports a problem, SK404, SK405 and 22023 as resolve_skill(), 54000 for '
'more than 1000 skills. Example: SELECT namespace, skill_name, version FROM skill_system.resolve_dependencies(''pdf-forms@^1.2'');';

CREATE FUNCTION skill_system.check_dependencies(VARIADIC skills text[] DEFAULT '{}')
    RETURNS TABLE (problem text, skill text, other_skill text, version_range text, detail text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_check_dependencies' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.check_dependencies(text[]) IS
'One row for each requirement of these skills that cannot be met when they are loaded together: missing (the skill does not exist), '
'version (no version is in the range), conflict (two of them exclude each other), cycle (with its path). Without arguments: each enabled '
'skill on its own, and limit for one that depends on more than 1000. A draft is given as skill@version with its 12 digits. Raises SK404, '
'SK405, 22023 and 54000 as resolve_dependencies(). Example: SELECT * FROM skill_system.check_dependencies(''pdf-forms'', ''ocr@^2'');';

CREATE FUNCTION skill_system.pin_skill(skill text, version text DEFAULT NULL, reason text DEFAULT NULL) RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_pin_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.pin_skill(text, text, text) IS
'Serves this version, by default the one served now, until unpin_skill(), regardless of what is registered or approved meanwhile. version '
'is a requirement as in resolve_skill(). Raises SK404 for an unknown skill, SK405 for a version that does not exist or is not approved. '
'Example: SELECT * FROM skill_system.pin_skill(''pdf-forms'', ''1.2.0'', ''audit until June'');';

CREATE FUNCTION skill_system.unpin_skill(skill text, reason text DEFAULT NULL) RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_unpin_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.unpin_skill(text, text) IS
'Removes the pin. The served version stays until another one is approved, rolled back to or pinned. Raises SK404. Example: SELECT * FROM '
'skill_system.unpin_skill(''pdf-forms'');';

CREATE FUNCTION skill_system.rollback_skill(skill text, version text DEFAULT NULL, reason text DEFAULT NULL)
    RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_rollback_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.rollback_skill(text, text, text) IS
'Serves another approved version, by default the newest that is older than the served one. version is a requirement as in '
'resolve_skill(). A pin moves to that version. The previous version stays approved; disable it with set_skill_status(). Raises SK404, '
'SK405 when no such approved version exists. Example: SELECT current_version FROM skill_system.rollback_skill(''pdf-forms'', reason => '
'''wrong form'');';

CREATE FUNCTION skill_system.set_skill_channel(skill text, channel text, version text DEFAULT NULL, reason text DEFAULT NULL)
    RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_set_skill_channel' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.set_skill_channel(text, text, text, text) IS
'Puts an approved version into a channel, by default the served one. version is a requirement as in resolve_skill(), so the name of '
'another channel promotes its version. The served version does not change. Raises SK404, SK405, 22023 for an invalid name or one that '
'could be a version. Example: SELECT * FROM skill_system.set_skill_channel(''pdf-forms'', ''stable'', ''beta'');';

CREATE FUNCTION skill_system.drop_skill_channel(skill text, channel text, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_drop_skill_channel' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.drop_skill_channel(text, text, text) IS
'Removes a channel of a skill; false if it did not exist. Raises SK404, 22023. Example: SELECT '
'skill_system.drop_skill_channel(''pdf-forms'', ''beta'');';

CREATE FUNCTION skill_system.skill_version_list(skill text)
    RETURNS TABLE (version text, semver text, status text, served boolean, channels text[], body_size integer, created_at timestamptz,
        created_by text, version_id uuid)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_version_list' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_version_list(text) IS
'The versions of a skill, the newest first, without their bodies. Raises SK404. Example: SELECT version, semver, status, served, channels '
'FROM skill_system.skill_version_list(''pdf-forms'');';

CREATE FUNCTION skill_system.diff_skill_versions(skill text, old_version text DEFAULT NULL, new_version text DEFAULT NULL)
    RETURNS TABLE (path text, change text, added integer, removed integer, diff text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_diff_skill_versions' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.diff_skill_versions(text, text, text) IS
'What differs between two versions, one row per file that was added, removed or changed; the body, front matter included, is SKILL.md. '
'old_version is by default the version that is served, new_version the newest; both are requirements as in resolve_skill(), 12 digits can '
'also identify a draft. diff is a unified diff for patch(1), NULL for binary files and files over 2 MiB. Raises SK404, SK405, 22023. '
'Example: SELECT diff FROM skill_system.diff_skill_versions(''pdf-forms'');';

CREATE FUNCTION skill_system.skills_token(namespace text DEFAULT NULL) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skills_token' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skills_token(text) IS
'The current position in the history of one namespace, or of all: a token for skill_changes(). It changes only when a skill changes. '
'Example: SELECT skill_system.skills_token(''default'');';

CREATE TYPE skill_system.skill_change AS (
    namespace text, revision bigint, action text, skill_id uuid, skill_name text, version_id uuid, version text, previous_status text,
    status text,
    channel text, changed_at timestamptz, changed_by text, reason text, token text);
COMMENT ON TYPE skill_system.skill_change IS
'Row of skill_changes(): a row of skill_history and, in the last row and others, the token to continue from.';

CREATE FUNCTION skill_system.skill_changes(since_token text DEFAULT NULL, namespace text DEFAULT NULL, max_rows integer DEFAULT 1000)
    RETURNS SETOF skill_system.skill_change
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_changes' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_changes(text, text, integer) IS
'What changed since a token, in the order of the commits of each namespace; NULL is the beginning. The last row has the token to continue '
'from, and others have one too, each row where the token has at most 256 bytes; in the rest it is NULL, for a token has all namespaces. '
'A consumer that stores the last token it met once all before it is processed sees every change exactly once; only no rows mean that '
'nothing has changed. Raises 22023 for an invalid token, for one that is ahead of this database (it was restored, or is a lagging standby) '
'and for '
'max_rows outside of 1 to 10000. Example: SELECT action, skill_name, version, token FROM skill_system.skill_changes(''{"default":41}'', '
'''default'');';

GRANT USAGE ON TYPE skill_system.skill_resolution, skill_system.skill_change
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT SELECT ON skill_system.skill_dependencies, skill_system.skill_channels
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.resolve_skill(text, text), skill_system.resolve_dependencies(text[]), skill_system.check_dependencies(text[]),
    skill_system.skill_version_list(text), skill_system.diff_skill_versions(text, text, text),
    skill_system.skills_token(text), skill_system.skill_changes(text, text, integer)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- Which version is served is a decision like an approval.
GRANT EXECUTE ON FUNCTION
    skill_system.pin_skill(text, text, text), skill_system.unpin_skill(text, text), skill_system.rollback_skill(text, text, text),
    skill_system.set_skill_channel(text, text, text, text), skill_system.drop_skill_channel(text, text, text)
    TO skill_system_reviewer, skill_system_admin;
