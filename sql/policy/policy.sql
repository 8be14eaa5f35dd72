-- Policy: may a skill have these effects, and by which rule.

CREATE TABLE skill_system.policy_profiles (
    id                  bigserial   NOT NULL,
    name                text        NOT NULL,
    allowed_effects     text[]      NOT NULL DEFAULT ARRAY[]::text[],
    allowed_exec        text[]      NOT NULL DEFAULT ARRAY[]::text[],
    allowed_write_roots text[]      NOT NULL DEFAULT ARRAY[]::text[],
    metadata            jsonb       NOT NULL DEFAULT '{}'::jsonb,
    created_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
    denied_effects      text[]      NOT NULL DEFAULT ARRAY[]::text[],
    ask_effects         text[]      NOT NULL DEFAULT ARRAY[]::text[],
    inherits            text[]      NOT NULL DEFAULT ARRAY[]::text[],
    unlisted            text        NOT NULL DEFAULT 'deny' CHECK (unlisted IN ('deny', 'ask')),
    mode                text        NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'observe')),
    version             integer     NOT NULL DEFAULT 0,
    content_hash        text,
    tenant_id           text        NOT NULL DEFAULT skill_system.current_tenant(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE skill_system.policy_profiles IS
'Policies: which effects a skill may have. Rules are name[:scope] with * for one segment and a final ** for any number; deny > ask > '
'allow > unlisted, order and specificity never matter; what denies or asks is read wide (docs/policy.md). Change rows '
'with INSERT, UPDATE, DELETE or create_policy(); each change is versioned and audited. Decide with check_policy(); '
'inspect with explain_policy(), lint_policy(), effective_policy().';
COMMENT ON COLUMN skill_system.policy_profiles.id IS 'Number of the profile.';
COMMENT ON COLUMN skill_system.policy_profiles.name IS 'Name, unique in the tenant, for example dev.';
COMMENT ON COLUMN skill_system.policy_profiles.allowed_effects IS 'Rules that allow, for example {db.read,fs.write:/srv/app/**}.';
COMMENT ON COLUMN skill_system.policy_profiles.allowed_exec IS
'The only commands that may run, unless empty: a program with any arguments (git), or word by word (npm test, cargo build **). The rules '
'must allow them as well.';
COMMENT ON COLUMN skill_system.policy_profiles.allowed_write_roots IS
'The only directories below which files may be written, unless empty, for example {/srv/app}. The rules must allow it as well.';
COMMENT ON COLUMN skill_system.policy_profiles.metadata IS 'Free-form metadata; part of the versioned content.';
COMMENT ON COLUMN skill_system.policy_profiles.created_at IS 'When the profile was created.';
COMMENT ON COLUMN skill_system.policy_profiles.denied_effects IS
'Rules that deny, whatever else is allowed: without case, a path with all below it, a program by any path.';
COMMENT ON COLUMN skill_system.policy_profiles.ask_effects IS 'Rules for effects that need a person''s approval.';
COMMENT ON COLUMN skill_system.policy_profiles.inherits IS 'Names of profiles whose rules are added to these.';
COMMENT ON COLUMN skill_system.policy_profiles.unlisted IS 'Verdict on an effect that no rule matches: deny or ask.';
COMMENT ON COLUMN skill_system.policy_profiles.mode IS 'enforce: enforce_policy() raises. observe: it only records.';
COMMENT ON COLUMN skill_system.policy_profiles.version IS 'Number of the current row in policy_versions; set by the server.';
COMMENT ON COLUMN skill_system.policy_profiles.content_hash IS
'SHA-256 of the current content, inherited profiles included; set by the server.';
COMMENT ON COLUMN skill_system.policy_profiles.tenant_id IS 'Tenant the profile belongs to.';

CREATE TABLE skill_system.policy_versions (
    policy_profile_id bigint      NOT NULL,
    version           integer     NOT NULL,
    content_hash      text,
    name              text        NOT NULL,
    content           jsonb,
    created_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    created_by        text        NOT NULL DEFAULT SESSION_USER,
    tenant_id         text        NOT NULL DEFAULT skill_system.current_tenant(),
    PRIMARY KEY (tenant_id, policy_profile_id, version)
);
COMMENT ON TABLE skill_system.policy_versions IS
'Every content a policy ever had, append-only. Written by the server when a profile, or one it inherits from, changes. The hash is what '
'check_policy() and runs report: SELECT content FROM skill_system.policy_versions WHERE content_hash = ''sha256:...'';';
COMMENT ON COLUMN skill_system.policy_versions.policy_profile_id IS 'Number of the profile, which may be deleted meanwhile.';
COMMENT ON COLUMN skill_system.policy_versions.version IS 'Counts from 1 for each profile.';
COMMENT ON COLUMN skill_system.policy_versions.content_hash IS
'sha256: and the SHA-256 of the canonical content: compact JSON, keys in byte order, rules sorted. NULL for a deletion.';
COMMENT ON COLUMN skill_system.policy_versions.name IS 'Name of the profile in this version.';
COMMENT ON COLUMN skill_system.policy_versions.content IS 'The canonical content, inherited profiles by their hash. NULL for a deletion.';
COMMENT ON COLUMN skill_system.policy_versions.created_at IS 'When this version came into force.';
COMMENT ON COLUMN skill_system.policy_versions.created_by IS 'Role that had logged in.';
COMMENT ON COLUMN skill_system.policy_versions.tenant_id IS 'Tenant of the profile.';

CREATE TYPE skill_system.policy_decision AS (
    allowed         boolean,
    blocked_effects text[],
    decision        text,
    ask_effects     text[],
    reason          text,
    policy_version  integer,
    policy_hash     text
);
COMMENT ON TYPE skill_system.policy_decision IS
'Result of check_policy() and related functions. allowed: all effects are allowed. blocked_effects: the requested effects that are not '
'allowed without a person''s approval. decision: allow, ask (a person may approve all blocked effects) or deny. ask_effects: the blocked '
'effects that a person may approve. reason: one line. policy_version, policy_hash: the policy that decided; NULL without a valid policy.';

CREATE FUNCTION skill_system.check_policy(policy_name text, effects text[]) RETURNS skill_system.policy_decision
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_check_policy_array';
CREATE FUNCTION skill_system.check_policy(policy_name text, effects jsonb) RETURNS skill_system.policy_decision
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_check_policy_jsonb';
CREATE FUNCTION skill_system.check_policy(policy_name text, effects text) RETURNS skill_system.policy_decision
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_check_policy_text';
COMMENT ON FUNCTION skill_system.check_policy(text, text[]) IS
'May a skill have these effects? Call it before acting. One row; never raises, and denies when in doubt: unknown policy, NULL, a '
'malformed effect or more than 1000 effects are not allowed, with the reason. Writes nothing, works on a standby. Task 1: May I do this? '
'Example: SELECT * FROM skill_system.check_policy(''dev'', ''{fs.read:/srv/app}''::text[]);';
COMMENT ON FUNCTION skill_system.check_policy(text, jsonb) IS
'check_policy() for a JSON array of effects, or one as a string. Example: SELECT * FROM skill_system.check_policy(''dev'', '
'manifest->''effects'') FROM ...;';
COMMENT ON FUNCTION skill_system.check_policy(text, text) IS
'check_policy() for a plain literal: one effect, JSON array or array literal. Examples: SELECT * FROM skill_system.check_policy(''dev'', '
'''db.read''); SELECT * FROM skill_system.check_policy(''dev'', ''{db.read, fs.read}'');';

CREATE FUNCTION skill_system.enforce_policy(policy_name text, effects text[]) RETURNS skill_system.policy_decision
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_enforce_policy_array';
CREATE FUNCTION skill_system.enforce_policy(policy_name text, effects jsonb) RETURNS skill_system.policy_decision
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_enforce_policy_jsonb';
CREATE FUNCTION skill_system.enforce_policy(policy_name text, effects text) RETURNS skill_system.policy_decision
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_enforce_policy_text';
COMMENT ON FUNCTION skill_system.enforce_policy(text, text[]) IS
'Like check_policy(), but raises 42501 naming the blocked effects and the rule unless all is allowed, after the denial has been committed '
'as an audit record policy.denied, which a rollback does not remove; 53400 when that was not possible. With mode = observe it does not '
'raise and writes an audit record policy.observed in the same way; reason states when it could not. Call it first in a transaction that '
'must not continue otherwise. Task 2: The same as a barrier: an error unless allowed. Example: SELECT * FROM '
'skill_system.enforce_policy(''dev'', ''{db.write}''::text[]);';
COMMENT ON FUNCTION skill_system.enforce_policy(text, jsonb) IS
'enforce_policy() for a JSON array of effects. Example: SELECT skill_system.enforce_policy(''dev'', ''["db.read"]''::jsonb);';
COMMENT ON FUNCTION skill_system.enforce_policy(text, text) IS
'enforce_policy() for a plain literal: one effect, JSON array or array literal. Example: SELECT skill_system.enforce_policy(''dev'', '
'''db.read'');';

-- Clients that choose a function by the names of its arguments know one function of a name.
CREATE FUNCTION skill_system.check_effects(policy_name text, effects jsonb) RETURNS skill_system.policy_decision
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_check_policy_jsonb';
COMMENT ON FUNCTION skill_system.check_effects(text, jsonb) IS
'check_policy() under a name with one signature, for clients that cannot choose among several: PostgREST, Supabase, sqlc, PostGraphile, '
'asyncpg. effects is a JSON array of effects, or one as a string. Example: SELECT * FROM skill_system.check_effects(policy_name => '
'''dev'', effects => ''["db.read"]'');';
CREATE FUNCTION skill_system.enforce_effects(policy_name text, effects jsonb) RETURNS skill_system.policy_decision
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_enforce_policy_jsonb';
COMMENT ON FUNCTION skill_system.enforce_effects(text, jsonb) IS
'enforce_policy() under a name with one signature, for the same clients as check_effects(). Example: SELECT * FROM '
'skill_system.enforce_effects(policy_name => ''dev'', effects => ''["db.read"]'');';

CREATE FUNCTION skill_system.check_exec(policy_name text, argv text[]) RETURNS skill_system.policy_decision
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_check_exec';
COMMENT ON FUNCTION skill_system.check_exec(text, text[]) IS
'May this command run? The effect proc.exec:<program> must be allowed, as check_policy() decides, and an entry of allowed_exec, unless '
'that is empty, must match program and arguments. A program without a slash matches only an entry without one. The arguments of a '
'program that runs others (sh, env, xargs) must not name a program that is denied. Never raises. Example: SELECT * FROM '
'skill_system.check_exec(''dev'', array[''git'', ''status'']);';
CREATE FUNCTION skill_system.check_write(policy_name text, path text) RETURNS skill_system.policy_decision
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_check_write';
COMMENT ON FUNCTION skill_system.check_write(text, text) IS
'May this file be written? check_policy() for the effect fs.write:<path>, which must lie in one of allowed_write_roots, unless that is '
'empty, with .. resolved. Symbolic links are not resolved. Never raises. Example: SELECT * FROM skill_system.check_write(''dev'', '
'''/srv/app/report.txt'');';

CREATE FUNCTION skill_system.explain_policy(policy_name text, effects text[])
    RETURNS TABLE (effect text, verdict text, winning_rule text, source_profile text, reason text)
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_explain_policy_array' SET search_path = pg_catalog, pg_temp;
CREATE FUNCTION skill_system.explain_policy(policy_name text, effects jsonb)
    RETURNS TABLE (effect text, verdict text, winning_rule text, source_profile text, reason text)
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_explain_policy_jsonb' SET search_path = pg_catalog, pg_temp;
CREATE FUNCTION skill_system.explain_policy(policy_name text, effects text)
    RETURNS TABLE (effect text, verdict text, winning_rule text, source_profile text, reason text)
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_explain_policy_text' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.explain_policy(text, text[]) IS
'One row per effect: the verdict, the rule that won, the profile it came from, and the reason in words. Raises 42704 for an unknown '
'policy. Task 3: Which rule decides? Example: SELECT * FROM skill_system.explain_policy(''dev'', ''{net.fetch:example.org}'');';
COMMENT ON FUNCTION skill_system.explain_policy(text, jsonb) IS
'explain_policy() for a JSON array of effects; 22023 for anything else. Example: SELECT * FROM skill_system.explain_policy(''dev'', '
'''["db.read"]''::jsonb);';
COMMENT ON FUNCTION skill_system.explain_policy(text, text) IS
'explain_policy() for a plain literal: one effect, JSON array or array literal; 22023 for anything else. Example: SELECT * FROM '
'skill_system.explain_policy(''dev'', ''fs.write:/etc/passwd'');';
CREATE FUNCTION skill_system.explain_effects(policy_name text, effects jsonb)
    RETURNS TABLE (effect text, verdict text, winning_rule text, source_profile text, reason text)
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_explain_policy_jsonb' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.explain_effects(text, jsonb) IS
'explain_policy() under a name with one signature, for the same clients as check_effects(). Example: SELECT * FROM '
'skill_system.explain_effects(policy_name => ''dev'', effects => ''["fs.write:/etc/passwd"]'');';
CREATE FUNCTION skill_system.effective_policy(policy_name text)
    RETURNS TABLE (kind text, verdict text, rule text, source_profile text)
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_effective_policy' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.effective_policy(text) IS
'The rules of a policy with everything it inherits: deny, ask and allow rules, the verdict on everything else, commands (exec) and '
'directories (write_root). Raises 42704 for an unknown policy. Example: SELECT * FROM skill_system.effective_policy(''dev'');';
CREATE FUNCTION skill_system.lint_policy(policy_name text)
    RETURNS TABLE (severity text, code text, rule text, source_profile text, message text, hint text)
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_lint_policy' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.lint_policy(text) IS
'Rules that have no effect, or perhaps not the intended one: shadowed_by_deny, shadowed_by_ask, redundant, partial (a deny that covers '
'less than it reads), narrow and wide (an allow that covers less or more), glob_character, never_matches, runs_programs, unknown_root, '
'unknown_effect, inert_exec, inert_write_root, unlimited (a note: no list restricts what is written or run), and for a policy that '
'cannot be evaluated malformed, unknown_parent, cycle, too_large. Example: SELECT * FROM skill_system.lint_policy(''dev'');';
CREATE FUNCTION skill_system.assert_allows(policy_name text, VARIADIC effects text[]) RETURNS void
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_assert_allows' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.assert_allows(text, text[]) IS
'For tests of a policy: raises P0004 unless every effect is allowed. Example: SELECT skill_system.assert_allows(''dev'', ''db.read'', '
'''fs.read'');';
CREATE FUNCTION skill_system.assert_denies(policy_name text, VARIADIC effects text[]) RETURNS void
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_assert_denies' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.assert_denies(text, text[]) IS
'For tests of a policy: raises P0004 if any of the effects is allowed without a person. Example: SELECT '
'skill_system.assert_denies(''dev'', ''proc.exec'');';
CREATE FUNCTION skill_system.effect_problem(rule text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_effect_problem' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.effect_problem(text) IS
'Why a text is not a valid policy rule; NULL when it is valid. Example: SELECT skill_system.effect_problem(''DB.read'');';

CREATE FUNCTION skill_system.check_policy_row() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_check_policy_row';
COMMENT ON FUNCTION skill_system.check_policy_row() IS 'Trigger function of policy_profiles: rejects rules that do not parse.';
CREATE FUNCTION skill_system.lock_policies() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_lock_policies';
COMMENT ON FUNCTION skill_system.lock_policies() IS 'Trigger function of policy_profiles: serializes statements that change policies.';
CREATE FUNCTION skill_system.record_policy_change() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_record_policy_change';
COMMENT ON FUNCTION skill_system.record_policy_change() IS
'Trigger function of policy_profiles: writes policy_versions and the audit trail and makes all sessions recompile the policy.';
CREATE FUNCTION skill_system.record_policy_deletion() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_record_policy_deletion';
COMMENT ON FUNCTION skill_system.record_policy_deletion() IS
'Trigger function of policy_profiles: records a last version and an audit record of a deleted profile.';

CREATE TRIGGER policy_profiles_lock BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON skill_system.policy_profiles
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.lock_policies();
CREATE TRIGGER policy_profiles_check BEFORE INSERT OR UPDATE ON skill_system.policy_profiles
    FOR EACH ROW EXECUTE FUNCTION skill_system.check_policy_row();
CREATE TRIGGER policy_profiles_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON skill_system.policy_profiles
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.record_policy_change();
CREATE TRIGGER policy_profiles_deleted AFTER DELETE ON skill_system.policy_profiles
    FOR EACH ROW EXECUTE FUNCTION skill_system.record_policy_deletion();

CREATE TRIGGER policy_versions_no_change BEFORE UPDATE OR DELETE ON skill_system.policy_versions
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER policy_versions_no_truncate BEFORE TRUNCATE ON skill_system.policy_versions
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();

CREATE FUNCTION skill_system.create_policy(
        name text, allow text[] DEFAULT '{}', ask text[] DEFAULT '{}', deny text[] DEFAULT '{}', inherits text[] DEFAULT '{}',
        allowed_exec text[] DEFAULT '{}', allowed_write_roots text[] DEFAULT '{}', unlisted text DEFAULT 'deny',
        mode text DEFAULT 'enforce', metadata jsonb DEFAULT '{}') RETURNS bigint
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO skill_system.policy_profiles
        (name, allowed_effects, ask_effects, denied_effects, inherits, allowed_exec, allowed_write_roots, unlisted, mode, metadata)
    VALUES (create_policy.name, allow, ask, deny, create_policy.inherits, create_policy.allowed_exec,
            create_policy.allowed_write_roots, create_policy.unlisted, create_policy.mode, create_policy.metadata)
    RETURNING id;
END;
COMMENT ON FUNCTION skill_system.create_policy(text, text[], text[], text[], text[], text[], text[], text, text, jsonb) IS
'Creates a policy and returns its id; change it later with UPDATE skill_system.policy_profiles. What lint_policy() finds comes as '
'WARNINGs. Raises 22023 for a malformed rule, 42704 for an unknown inherited policy, 23505 when the name is in use. Task 40: Create a '
'policy. Example: SELECT skill_system.create_policy(''mine'', allow => ''{db.read}'', ask => ''{db.write}'');';

CREATE FUNCTION skill_system.install_starter_policies() RETURNS TABLE (name text, installed boolean)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH starter(name, allow, ask, deny, roots, note) AS (
        VALUES ('dev', '{db.read,db.write,fs.read,fs.write,git.read,git.write}'::text[], '{net.fetch,proc.exec}'::text[], '{}'::text[],
                '{/home,/srv,/tmp,/workspace,/Users,C:/Users}'::text[],
                'Development: data, git and files are free, those to write below allowed_write_roots; network and programs need a person.'),
               ('readonly', '{db.read,fs.read,git.read}', '{}', '{db.write,fs.write,git.write,proc.exec}', '{}',
                'Looks at everything and changes nothing.'),
               ('locked', '{}', '{}', '{**}', '{}', 'Nothing may happen.')
    ), made AS (
        INSERT INTO skill_system.policy_profiles (name, allowed_effects, ask_effects, denied_effects, allowed_write_roots, metadata)
        SELECT s.name, s.allow, s.ask, s.deny, s.roots, pg_catalog.jsonb_build_object('description', s.note) FROM starter s
        ON CONFLICT (tenant_id, name) DO NOTHING
        RETURNING policy_profiles.name
    )
    SELECT s.name, m.name IS NOT NULL FROM starter s LEFT JOIN made m ON m.name OPERATOR(pg_catalog.=) s.name ORDER BY s.name;
END;
COMMENT ON FUNCTION skill_system.install_starter_policies() IS
'Creates the policies dev, readonly and locked unless the tenant has a policy of that name; installed tells which were created. Example: '
'SELECT * FROM skill_system.install_starter_policies();';

GRANT USAGE ON TYPE skill_system.policy_decision
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT SELECT ON skill_system.policy_profiles, skill_system.policy_versions
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT INSERT (name, allowed_effects, allowed_exec, allowed_write_roots, metadata, denied_effects, ask_effects, inherits, unlisted, mode),
      UPDATE (name, allowed_effects, allowed_exec, allowed_write_roots, metadata, denied_effects, ask_effects, inherits, unlisted, mode)
      ON skill_system.policy_profiles TO skill_system_admin;
GRANT USAGE ON SEQUENCE skill_system.policy_profiles_id_seq TO skill_system_admin;

GRANT EXECUTE ON FUNCTION
    skill_system.check_policy(text, text[]), skill_system.check_policy(text, jsonb), skill_system.check_policy(text, text),
    skill_system.enforce_policy(text, text[]), skill_system.enforce_policy(text, jsonb), skill_system.enforce_policy(text, text),
    skill_system.check_effects(text, jsonb), skill_system.enforce_effects(text, jsonb), skill_system.explain_effects(text, jsonb),
    skill_system.check_exec(text, text[]), skill_system.check_write(text, text),
    skill_system.explain_policy(text, text[]), skill_system.explain_policy(text, jsonb), skill_system.explain_policy(text, text),
    skill_system.effective_policy(text), skill_system.lint_policy(text),
    skill_system.assert_allows(text, text[]), skill_system.assert_denies(text, text[]), skill_system.effect_problem(text)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.create_policy(text, text[], text[], text[], text[], text[], text[], text, text, jsonb),
    skill_system.install_starter_policies()
    TO skill_system_admin;
