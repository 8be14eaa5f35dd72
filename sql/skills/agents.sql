-- Skills for agents: the three tiers of a skill's content, agents and what they load, one injection per conversation.
-- Administrators write these tables directly; the rows are small and each change is audited.

CREATE TABLE skill_system.agents (
    id         varchar(100) NOT NULL COLLATE "C" CHECK (id <> ''),
    name       varchar(200) NOT NULL,
    config     jsonb        NOT NULL CHECK (pg_catalog.jsonb_typeof(config) = 'object'),
    status     varchar(20)  NOT NULL DEFAULT 'active',
    created_at timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    tenant_id  text         NOT NULL DEFAULT skill_system.current_tenant(),
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE skill_system.agents IS
'Agents with their configuration. Administrators write it directly: INSERT INTO skill_system.agents (id, name, config) VALUES '
'(''rule37-agent'', ''Rule 37'', ''{"skills": ["spacing-calculation"]}''); skill_catalog() shows an agent the skills in its config, and '
'check_integrity() looks them up.';
COMMENT ON COLUMN skill_system.agents.id IS 'Identifier, for example rule37-agent; unique in the tenant.';
COMMENT ON COLUMN skill_system.agents.name IS 'Display name.';
COMMENT ON COLUMN skill_system.agents.config IS
'System prompt, model, budgets, escalation; skills is an array of the names of its skills (name or namespace/name).';
COMMENT ON COLUMN skill_system.agents.status IS 'active; with any other value the agent sees no catalogue.';
COMMENT ON COLUMN skill_system.agents.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.agents.updated_at IS 'When it was changed last; kept by the server.';
COMMENT ON COLUMN skill_system.agents.tenant_id IS 'Tenant of the agent.';

CREATE TABLE skill_system.skill_artifacts (
    id             varchar(100) NOT NULL COLLATE "C" CHECK (id <> ''),
    skill_id       uuid,
    name           varchar(200) NOT NULL,
    content        text         NOT NULL,
    content_hash   varchar(64)  NOT NULL CHECK (content_hash ~ '^[0-9a-f]{64}$'),
    token_estimate integer      CHECK (token_estimate >= 0),
    created_at     timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    tenant_id      text         NOT NULL DEFAULT skill_system.current_tenant(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, skill_id) REFERENCES skill_system.skill_heads (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX skill_artifacts_skill ON skill_system.skill_artifacts (tenant_id, skill_id);
COMMENT ON TABLE skill_system.skill_artifacts IS
'Long texts of skills, tier 3: reference tables, guides, regulations. load_skill() lists them, load_artifact() returns one. '
'Administrators write it directly: INSERT INTO skill_system.skill_artifacts (id, skill_id, name, content) SELECT ''swr-37-text'', id, '
'''Statewide Rule 37'', ''...'' FROM skill_system.skills WHERE skill_name = ''rrc_rule37'';';
COMMENT ON COLUMN skill_system.skill_artifacts.id IS 'Identifier, unique in the tenant; load_artifact() and tier3_artifact_refs name it.';
COMMENT ON COLUMN skill_system.skill_artifacts.skill_id IS
'Skill it belongs to; it is deleted when the skill is deleted permanently. NULL: any skill may refer to it.';
COMMENT ON COLUMN skill_system.skill_artifacts.name IS 'Display name.';
COMMENT ON COLUMN skill_system.skill_artifacts.content IS 'The text.';
COMMENT ON COLUMN skill_system.skill_artifacts.content_hash IS
'SHA-256 of the text''s bytes, 64 hexadecimal digits; computed by the server. A given value must match.';
COMMENT ON COLUMN skill_system.skill_artifacts.token_estimate IS
'Tokens: as given, or one for every four bytes; recomputed when the text changes.';
COMMENT ON COLUMN skill_system.skill_artifacts.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.skill_artifacts.tenant_id IS 'Tenant of the artifact.';

CREATE TABLE skill_system.skill_personas (
    id                  uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    skill_id            uuid         NOT NULL,
    persona_key         varchar(128) NOT NULL COLLATE "C" CHECK (persona_key <> ''),
    display_name        varchar(255),
    prompt_text         text,
    prompt_template_ref varchar(255),
    is_default          boolean      NOT NULL DEFAULT false,
    sort_order          integer      NOT NULL DEFAULT 0,
    tenant_id           text         NOT NULL DEFAULT skill_system.current_tenant(),
    created_at          timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    updated_at          timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, skill_id, persona_key),
    CONSTRAINT skill_personas_one_prompt CHECK ((prompt_text IS NULL) <> (prompt_template_ref IS NULL)),
    FOREIGN KEY (tenant_id, skill_id) REFERENCES skill_system.skill_heads (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX skill_personas_default ON skill_system.skill_personas (tenant_id, skill_id) WHERE is_default;
COMMENT ON TABLE skill_system.skill_personas IS
'Voices of skills: each an inline prompt or the slug of a prompt template, exactly one of the two. load_skill() returns them. '
'Administrators write it directly: INSERT INTO skill_system.skill_personas (skill_id, persona_key, prompt_text, is_default) SELECT id, '
'''expert'', ''You are a spacing expert.'', true FROM skill_system.skills WHERE skill_name = ''rrc_rule37'';';
COMMENT ON COLUMN skill_system.skill_personas.id IS 'UUID of the persona.';
COMMENT ON COLUMN skill_system.skill_personas.skill_id IS 'Skill it belongs to; it is deleted when the skill is deleted permanently.';
COMMENT ON COLUMN skill_system.skill_personas.persona_key IS 'Its key, unique in the skill.';
COMMENT ON COLUMN skill_system.skill_personas.display_name IS 'Display name.';
COMMENT ON COLUMN skill_system.skill_personas.prompt_text IS 'The prompt itself, voice and identity only.';
COMMENT ON COLUMN skill_system.skill_personas.prompt_template_ref IS 'Slug of a prompt template, instead of prompt_text.';
COMMENT ON COLUMN skill_system.skill_personas.is_default IS 'Used unless another one is selected; at most one per skill.';
COMMENT ON COLUMN skill_system.skill_personas.sort_order IS 'Place in a list.';
COMMENT ON COLUMN skill_system.skill_personas.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_personas.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.skill_personas.updated_at IS 'When it was changed last; kept by the server.';

CREATE TABLE skill_system.skill_code_blocks (
    id          uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    skill_id    uuid         NOT NULL,
    block_key   varchar(128) NOT NULL COLLATE "C" CHECK (block_key <> ''),
    language    varchar(32),
    code        text,
    parameters  jsonb        CHECK (pg_catalog.jsonb_typeof(parameters) = 'object'),
    description text         NOT NULL DEFAULT '',
    llm_visible boolean      NOT NULL DEFAULT true,
    sort_order  integer      NOT NULL DEFAULT 0,
    tenant_id   text         NOT NULL DEFAULT skill_system.current_tenant(),
    created_at  timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    updated_at  timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, skill_id, block_key),
    CHECK (code IS NOT NULL OR parameters IS NOT NULL),
    FOREIGN KEY (tenant_id, skill_id) REFERENCES skill_system.skill_heads (tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE skill_system.skill_code_blocks IS
'Tools that come with skills: code, the parameters it takes, or both. load_skill() returns those that the model may see. Administrators '
'write it directly: INSERT INTO skill_system.skill_code_blocks (skill_id, block_key, description, parameters) SELECT id, ''spacing'', '
'''Distance to the lease line'', ''{"type": "object"}'' FROM skill_system.skills WHERE skill_name = ''rrc_rule37'';';
COMMENT ON COLUMN skill_system.skill_code_blocks.id IS 'UUID of the block.';
COMMENT ON COLUMN skill_system.skill_code_blocks.skill_id IS 'Skill it belongs to; it is deleted when the skill is deleted permanently.';
COMMENT ON COLUMN skill_system.skill_code_blocks.block_key IS 'Name of the tool, unique in the skill.';
COMMENT ON COLUMN skill_system.skill_code_blocks.language IS 'Language of the code, for example python.';
COMMENT ON COLUMN skill_system.skill_code_blocks.code IS 'The code; NULL when the runtime provides it.';
COMMENT ON COLUMN skill_system.skill_code_blocks.parameters IS 'JSON Schema of its parameters.';
COMMENT ON COLUMN skill_system.skill_code_blocks.description IS 'What it does, for the model.';
COMMENT ON COLUMN skill_system.skill_code_blocks.llm_visible IS 'The model may see it.';
COMMENT ON COLUMN skill_system.skill_code_blocks.sort_order IS 'Place in a list.';
COMMENT ON COLUMN skill_system.skill_code_blocks.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_code_blocks.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.skill_code_blocks.updated_at IS 'When it was changed last; kept by the server.';

CREATE TABLE skill_system.agent_definitions (
    id             uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id      text         NOT NULL DEFAULT skill_system.current_tenant(),
    agent_key      varchar(128) NOT NULL COLLATE "C" CHECK (agent_key <> ''),
    root_skill_key varchar(128) COLLATE "C",
    persona_key    varchar(128) COLLATE "C",
    model_config   jsonb        NOT NULL DEFAULT '{}',
    loaded_skills  text[]       NOT NULL DEFAULT '{}',
    is_active      boolean      NOT NULL DEFAULT true,
    is_system      boolean      NOT NULL DEFAULT false,
    created_at     timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    updated_at     timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, agent_key)
);
COMMENT ON TABLE skill_system.agent_definitions IS
'The root skill, persona and model of each agent. Skills are stored by name, without a foreign key: a definition may exist before its '
'skill, and check_integrity() reports unresolved names. Administrators write it directly: INSERT INTO skill_system.agent_definitions '
'(agent_key, root_skill_key) VALUES (''rule_37'', ''rrc_rule37''), (''general'', NULL);';
COMMENT ON COLUMN skill_system.agent_definitions.id IS 'UUID of the definition.';
COMMENT ON COLUMN skill_system.agent_definitions.tenant_id IS 'Tenant of the agent.';
COMMENT ON COLUMN skill_system.agent_definitions.agent_key IS 'The agent, for example rule_37; unique in the tenant.';
COMMENT ON COLUMN skill_system.agent_definitions.root_skill_key IS
'Slug of its skill: skill_definitions.skill_key, or namespace/skill_key outside of the namespace default. NULL: general mode.';
COMMENT ON COLUMN skill_system.agent_definitions.persona_key IS 'Persona of the root skill; NULL: its default.';
COMMENT ON COLUMN skill_system.agent_definitions.model_config IS 'Which model it prefers, and how.';
COMMENT ON COLUMN skill_system.agent_definitions.loaded_skills IS 'Slugs of more skills that it may load.';
COMMENT ON COLUMN skill_system.agent_definitions.is_active IS 'The agent is in use; otherwise it sees no catalogue and is not checked.';
COMMENT ON COLUMN skill_system.agent_definitions.is_system IS 'It came with the platform.';
COMMENT ON COLUMN skill_system.agent_definitions.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.agent_definitions.updated_at IS 'When it was changed last; kept by the server.';

CREATE TABLE skill_system.skill_injections (
    id               uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id        text         NOT NULL DEFAULT skill_system.current_tenant(),
    conversation_id  varchar(100) NOT NULL COLLATE "C",
    tier             smallint     NOT NULL CHECK (tier IN (2, 3)),
    skill_id         uuid,
    artifact_id      varchar(100) COLLATE "C",
    version          text         NOT NULL,
    content_hash     varchar(64)  NOT NULL COLLATE "C",
    tokens           integer      NOT NULL,
    injected_at      timestamptz  NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    injected_by      text         NOT NULL,
    times            integer      NOT NULL DEFAULT 1,
    last_injected_at timestamptz  NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    CHECK ((tier = 2) = (artifact_id IS NULL)),
    CONSTRAINT skill_injections_once UNIQUE NULLS NOT DISTINCT (tenant_id, conversation_id, tier, skill_id, artifact_id, content_hash)
);
COMMENT ON TABLE skill_system.skill_injections IS
'What was injected into which conversation, so that nothing is injected twice. Written by load_skill() and load_artifact() when they are '
'called with a conversation_id; it is kept when skills are deleted. Example: SELECT tier, skill_id, artifact_id, tokens FROM '
'skill_system.skill_injections WHERE conversation_id = ''c-17'' ORDER BY injected_at;';
COMMENT ON COLUMN skill_system.skill_injections.id IS 'UUID of the entry.';
COMMENT ON COLUMN skill_system.skill_injections.tenant_id IS 'Tenant of the conversation.';
COMMENT ON COLUMN skill_system.skill_injections.conversation_id IS 'The conversation.';
COMMENT ON COLUMN skill_system.skill_injections.tier IS '2: a skill; 3: an artifact.';
COMMENT ON COLUMN skill_system.skill_injections.skill_id IS 'The skill, or that of the artifact.';
COMMENT ON COLUMN skill_system.skill_injections.artifact_id IS 'The artifact; NULL for a skill.';
COMMENT ON COLUMN skill_system.skill_injections.version IS 'Version of the skill, or first 12 digits of the artifact''s hash.';
COMMENT ON COLUMN skill_system.skill_injections.content_hash IS
'SHA-256 of the injected content, its version included; content with another hash is new to the conversation.';
COMMENT ON COLUMN skill_system.skill_injections.tokens IS 'Estimated tokens.';
COMMENT ON COLUMN skill_system.skill_injections.injected_at IS 'When it was injected first.';
COMMENT ON COLUMN skill_system.skill_injections.injected_by IS 'Role that had logged in.';
COMMENT ON COLUMN skill_system.skill_injections.times IS 'How often; more than once only with force.';
COMMENT ON COLUMN skill_system.skill_injections.last_injected_at IS 'When it was injected last.';

CREATE VIEW skill_system.skill_definitions WITH (security_invoker = true) AS
SELECT h.id, h.tenant_id, h.skill_name AS skill_key, h.namespace, coalesce(h.name::text, h.skill_name)::varchar(200) AS name, h.description,
    h.context_mode, h.tier1_manifest, h.tier2_definition, h.tier3_artifact_refs, h.domain_tags,
    CASE WHEN h.enabled THEN 'active' WHEN h.status = 'approved' THEN 'inactive' ELSE h.status END::varchar(20) AS status,
    h.created_at, h.updated_at
FROM skill_system.skill_heads h
WHERE h.deleted_at IS NULL;
COMMENT ON VIEW skill_system.skill_definitions IS
'Skills as presented to agents. skill_personas, skill_code_blocks and skill_artifacts refer to its id, agent_definitions.root_skill_key '
'to its skill_key. Write with define_skill(). Example: SELECT skill_key, status, context_mode FROM skill_system.skill_definitions;';
COMMENT ON COLUMN skill_system.skill_definitions.id IS 'UUID of the skill.';
COMMENT ON COLUMN skill_system.skill_definitions.tenant_id IS 'Tenant of the skill.';
COMMENT ON COLUMN skill_system.skill_definitions.skill_key IS 'Its slug: the name of the skill in its namespace.';
COMMENT ON COLUMN skill_system.skill_definitions.namespace IS 'Its namespace.';
COMMENT ON COLUMN skill_system.skill_definitions.name IS 'Display name.';
COMMENT ON COLUMN skill_system.skill_definitions.description IS 'What it does and when to use it.';
COMMENT ON COLUMN skill_system.skill_definitions.context_mode IS
'reason_alongside: the model reads it. compute_and_return: it runs separately and returns a result.';
COMMENT ON COLUMN skill_system.skill_definitions.tier1_manifest IS 'What a catalogue shows, if it was given.';
COMMENT ON COLUMN skill_system.skill_definitions.tier2_definition IS
'The specification that is loaded on selection; NULL: the body of the current version.';
COMMENT ON COLUMN skill_system.skill_definitions.tier3_artifact_refs IS 'Artifacts it refers to; NULL: its own.';
COMMENT ON COLUMN skill_system.skill_definitions.domain_tags IS 'Labels for matching.';
COMMENT ON COLUMN skill_system.skill_definitions.status IS
'active: agents may load it. inactive: approved, but switched off. draft, disabled.';
COMMENT ON COLUMN skill_system.skill_definitions.created_at IS 'When the skill was registered.';
COMMENT ON COLUMN skill_system.skill_definitions.updated_at IS 'When it was changed last.';

CREATE FUNCTION skill_system.hash_artifact() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_hash_artifact' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.hash_artifact() IS
'Trigger function of skill_artifacts: computes content_hash and token_estimate, and rejects a content_hash that does not match the '
'content. Rows written by the owner of the tables, as by a restore, are not rejected; check_integrity() reports them. Fires at the origin.';

CREATE TRIGGER hash_artifact BEFORE INSERT OR UPDATE ON skill_system.skill_artifacts
    FOR EACH ROW EXECUTE FUNCTION skill_system.hash_artifact();
CREATE TRIGGER trg_updated BEFORE UPDATE ON skill_system.agents
    FOR EACH ROW EXECUTE FUNCTION skill_system.keep_updated_at();
CREATE TRIGGER trg_updated BEFORE UPDATE ON skill_system.skill_personas
    FOR EACH ROW EXECUTE FUNCTION skill_system.keep_updated_at();
CREATE TRIGGER trg_updated BEFORE UPDATE ON skill_system.skill_code_blocks
    FOR EACH ROW EXECUTE FUNCTION skill_system.keep_updated_at();
CREATE TRIGGER trg_updated BEFORE UPDATE ON skill_system.agent_definitions
    FOR EACH ROW EXECUTE FUNCTION skill_system.keep_updated_at();
CREATE TRIGGER skill_injections_guard BEFORE UPDATE ON skill_system.skill_injections
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_columns('times', 'last_injected_at');
COMMENT ON TRIGGER skill_injections_guard ON skill_system.skill_injections IS
'What was injected never changes; how often and when does. Fires at the origin.';
-- Every change is audited, except rows that a restore brings back: those are older than its transaction.
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.agents
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now())
        EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.agents
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
-- The text of an artifact may be long; the audit trail has its hash.
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.skill_artifacts
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'content');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.skill_artifacts
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'content');
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.skill_personas
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now())
        EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.skill_personas
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.skill_code_blocks
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now())
        EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.skill_code_blocks
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.agent_definitions
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now())
        EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.agent_definitions
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');

CREATE FUNCTION skill_system.define_skill(
        skill text, tier1_manifest jsonb DEFAULT NULL, tier2_definition jsonb DEFAULT NULL, tier3_artifact_refs jsonb DEFAULT NULL,
        domain_tags text[] DEFAULT NULL, context_mode text DEFAULT NULL, name text DEFAULT NULL, body text DEFAULT NULL,
        effects text[] DEFAULT NULL, reason text DEFAULT NULL) RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_define_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.define_skill(text, jsonb, jsonb, jsonb, text[], text, text, text, text[], text) IS
'Defines what agents are told about a skill: tier 1 {name, description, triggers}, tier 2 {description, steps, requirements, '
'output_format, ...}, tier 3 [artifact ids], tags, context_mode reason_alongside or compute_and_return. NULL leaves a value unchanged, '
'JSON null removes a tier; all of it persists across versions. A skill that does not exist is registered as a draft with the given body '
'(default: the text of tier 2), the description of tier 1 and the effects. Raises SK404 when the skill does not exist and no body can be '
'derived, SK409 for a different body or different effects of an existing skill, 22023 for malformed values. Example: SELECT * FROM '
'skill_system.define_skill(''rrc_rule37'', ''{"description": "Spacing exceptions", "triggers": ["rule 37"]}'', ''{"steps": ["Find the '
'nearest well"]}'');';

CREATE FUNCTION skill_system.skill_catalog(agent text DEFAULT NULL, policy_name text DEFAULT NULL, max_tokens integer DEFAULT NULL,
    namespace text DEFAULT NULL)
    RETURNS TABLE (skill_id uuid, name text, description text, triggers text[], domain_tags text[], token_estimate integer,
                   skill text, "version" text, context_mode text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_skill_catalog' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.skill_catalog(text, text, integer, text) IS
'Tier 1: the skills that an agent may load, for its system prompt; skill is what load_skill() takes. Only enabled ones, in the order of '
'namespace and name. With an agent (agent_definitions.agent_key or agents.id) only its root skill, loaded_skills and the skills of its '
'config, in this order; all skills, if it has none of them. With a policy only those whose declared effects it allows without a person. '
'With max_tokens it stops before the skill that would exceed them. Raises 42704 for an unknown agent or policy, 55000 for an agent that '
'is not active, 22023 for negative max_tokens. Example: SELECT skill, name, description FROM skill_system.skill_catalog(''rule_37'', '
'''dev'', 2000);';

CREATE TYPE skill_system.loaded_skill AS (
    skill_id uuid, skill text, name text, version text, context_mode text, already_loaded boolean, definition jsonb, body text,
    personas jsonb, code_blocks jsonb, artifacts jsonb, token_estimate integer, content_hash text);
COMMENT ON TYPE skill_system.loaded_skill IS
'Result of load_skill(). definition: tier2_definition; body: that of the current version, without a definition. personas, '
'code_blocks, artifacts: arrays; of code blocks those that the model may see, of artifacts {id, name, token_estimate}. token_estimate: '
'tokens of all of it. already_loaded: the conversation already has it, so the content is NULL.';
CREATE FUNCTION skill_system.load_skill(skill text, policy_name text DEFAULT NULL, conversation_id text DEFAULT NULL,
    force boolean DEFAULT false)
    RETURNS skill_system.loaded_skill
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_load_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.load_skill(text, text, text, boolean) IS
'Tier 2: the full content of a skill, for a model that has selected it. In a conversation each content is returned once: the second time '
'already_loaded is true and the content is NULL, unless force is true; changed content counts as new. Without a conversation nothing is '
'written, so it also works on a standby. With a policy, effects that it does not allow raise 42501 as in enforce_policy(). Raises SK404 '
'for an unknown skill, 55000 for one that is not enabled. Task 5: Read a skill. Example: SELECT body FROM '
'skill_system.load_skill(''pdf-forms'', ''dev'');';

CREATE TYPE skill_system.loaded_artifact AS (
    artifact_id text, skill_id uuid, name text, already_loaded boolean, content text, content_hash text, token_estimate integer);
COMMENT ON TYPE skill_system.loaded_artifact IS
'Result of load_artifact(). already_loaded: the conversation already has it, so content is NULL.';
CREATE FUNCTION skill_system.load_artifact(artifact text, policy_name text DEFAULT NULL, conversation_id text DEFAULT NULL,
    force boolean DEFAULT false)
    RETURNS skill_system.loaded_artifact
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_load_artifact' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.load_artifact(text, text, text, boolean) IS
'Tier 3: the text of an artifact, under the same rules as load_skill() for the skill it belongs to. Raises 42704 for an unknown artifact, '
'55000 when its skill is not enabled, XX001 when the text does not match its hash. Example: SELECT content FROM '
'skill_system.load_artifact(''swr-37-text'', ''dev'', ''c-17'');';

CREATE FUNCTION skill_system.reset_injections(conversation_id text) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_reset_injections' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.reset_injections(text) IS
'Deletes the record of what a conversation was given and returns the number of entries: call it when the context of the conversation was '
'compacted, or when it has ended. Example: SELECT skill_system.reset_injections(''c-17'');';

CREATE FUNCTION skill_system.check_integrity()
    RETURNS TABLE (severity text, code text, subject text, reference text, message text, hint text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_check_integrity' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.check_integrity() IS
'Unresolved references, one row each, no rows if none exist: unknown_root_skill, unknown_skill, inactive_skill, unknown_persona and '
'unreadable_skills of active agents, unknown_artifact of skills, content_mismatch of artifacts. severity is warning, or error with '
'skill_system.integrity_fail_loud on. Example: SELECT * FROM skill_system.check_integrity();';
CREATE FUNCTION skill_system.assert_integrity() RETURNS integer
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_assert_integrity' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.assert_integrity() IS
'check_integrity() for the start of a service: returns the number of findings and reports the first ones in a WARNING; with '
'skill_system.integrity_fail_loud on it raises P0004 when any exist. Example: SET skill_system.integrity_fail_loud = on; SELECT '
'skill_system.assert_integrity();';

GRANT USAGE ON TYPE skill_system.loaded_skill, skill_system.loaded_artifact
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT SELECT ON skill_system.agents, skill_system.skill_artifacts, skill_system.skill_personas, skill_system.skill_code_blocks,
    skill_system.agent_definitions, skill_system.skill_injections, skill_system.skill_definitions
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- Not created_at: it distinguishes new rows from restored ones.
GRANT INSERT (id, name, config, status), UPDATE (id, name, config, status, updated_at) ON skill_system.agents TO skill_system_admin;
GRANT INSERT (id, skill_id, name, content, content_hash, token_estimate),
    UPDATE (id, skill_id, name, content, content_hash, token_estimate)
    ON skill_system.skill_artifacts TO skill_system_admin;
GRANT INSERT (id, skill_id, persona_key, display_name, prompt_text, prompt_template_ref, is_default, sort_order),
    UPDATE (persona_key, display_name, prompt_text, prompt_template_ref, is_default, sort_order, updated_at) ON skill_system.skill_personas
        TO skill_system_admin;
GRANT INSERT (id, skill_id, block_key, language, code, parameters, description, llm_visible, sort_order),
    UPDATE (block_key, language, code, parameters, description, llm_visible, sort_order, updated_at) ON skill_system.skill_code_blocks
        TO skill_system_admin;
GRANT INSERT (id, tenant_id, agent_key, root_skill_key, persona_key, model_config, loaded_skills, is_active, is_system),
    UPDATE (agent_key, root_skill_key, persona_key, model_config, loaded_skills, is_active, is_system, updated_at)
        ON skill_system.agent_definitions TO skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.define_skill(text, jsonb, jsonb, jsonb, text[], text, text, text, text[], text)
    TO skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.load_skill(text, text, text, boolean), skill_system.load_artifact(text, text, text, boolean),
    skill_system.reset_injections(text)
    TO skill_system_agent, skill_system_reviewer, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.skill_catalog(text, text, integer, text), skill_system.check_integrity(),
    skill_system.assert_integrity()
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
