-- Skills: SKILL.md in and out, what a manifest declares, and whether a policy allows it.

CREATE FUNCTION skill_system.register_skill(
        source text, namespace text DEFAULT 'default', files jsonb DEFAULT NULL, mode text DEFAULT 'strict', name text DEFAULT NULL)
    RETURNS skill_system.skill_state
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_register_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.register_skill(text, text, jsonb, text, text) IS
'Registers a SKILL.md, byte for byte, as a draft version of the skill named in its front matter; registering the same content again '
'returns the same version. files maps paths to texts or {"base64": text}, at most 512 files and 16 MiB with SKILL.md. mode strict follows '
'the specification of agentskills.io, lenient also accepts what clients still load, with name, that of the directory, for one that the '
'file does not give; unknown fields are kept. Effects, id and version come from the block skill-manifest. An approved version remains the '
'served one until the new one is approved with set_skill_status(). Raises 22023 with the findings for an invalid SKILL.md, an unsafe path '
'or an invalid namespace, 54000 above the limits. Task 6: Offer a skill, as a draft. Example: SELECT * FROM '
'skill_system.register_skill(''<SKILL.md>'');';

CREATE FUNCTION skill_system.validate_skill(source text, mode text DEFAULT 'strict', name text DEFAULT NULL)
    RETURNS TABLE (severity text, code text, field text, line integer, message text)
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_validate_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.validate_skill(text, text, text) IS
'What register_skill() would report for a SKILL.md, one row per finding; no rows if none exist. severity is error (would be '
'rejected), warning (should be reviewed) or note; code is stable. Stores nothing. Raises 22023 for another mode, 54000 for a source of '
'more than 16 MiB. Example: SELECT * FROM skill_system.validate_skill(E''---\nname: PDF\ndescription: Use when: asked\n---\n'');';

CREATE FUNCTION skill_system.export_skill(skill text, version text DEFAULT NULL) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_export_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.export_skill(text, text) IS
'The text of a version exactly as it was registered, by default of the served version. skill is a name in the namespace default, '
'namespace/name or a UUID; a deleted skill is found by its UUID only. Raises SK404 and SK405 if the skill or version does not exist. '
'Example: SELECT skill_system.export_skill(''pdf-forms'');';

CREATE FUNCTION skill_system.export_skill_files(skill text, version text DEFAULT NULL)
    RETURNS TABLE (path text, content bytea, size integer, sha256 text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_export_skill_files' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.export_skill_files(text, text) IS
'All files of a version, SKILL.md first, with their SHA-256, by default of the version that is served: what an installer writes to disk. '
'Raises SK404 and SK405 if the skill or version does not exist. Example: SELECT path, size, sha256 FROM '
'skill_system.export_skill_files(''pdf-forms'');';

CREATE FUNCTION skill_system.check_skill(policy_name text, skill text, operation text DEFAULT NULL) RETURNS skill_system.policy_decision
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_check_skill' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.check_skill(text, text, text) IS
'May this skill run under this policy? Passes the effects that the manifest of the served version declares to check_policy(). Also '
'denied, with a reason: a skill that does not exist, is a draft, disabled or deleted; one without a manifest (its effects are unknown; [] '
'in a manifest declares that it has none); and an operation that the manifest does not contain. Never raises for these. Example: SELECT '
'allowed, reason FROM skill_system.check_skill(''dev'', ''pdf-forms'', ''fill'');';

GRANT EXECUTE ON FUNCTION
    skill_system.validate_skill(text, text, text), skill_system.export_skill(text, text), skill_system.export_skill_files(text, text),
    skill_system.check_skill(text, text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.register_skill(text, text, jsonb, text, text)
    TO skill_system_agent, skill_system_reviewer, skill_system_admin;
