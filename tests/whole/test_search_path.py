"""Attacks by search_path: objects of the attacker's, first in the path, must never be run with another's rights, nor
change what a function of the extension answers."""

import io
import zipfile

import psycopg

# C functions on hot paths that run no SQL by search_path: what they run through SPI is run with search_path pinned in
# the library. Each is called by an attacker below.
PINNED_IN_THE_LIBRARY = {
    "current_tenant",
    "uuid_v7",
    "check_policy",
    "enforce_policy",
    "check_effects",
    "enforce_effects",
    "check_exec",
    "check_write",
    "append_audit",
    "log_denial",
    "audit_problem",
    "verify_audit",
    "audit_record_digest",
    "audit_leaf_hash",
    "audit_leaves",
    "audit_verify_progress_entries",
    "seal_audit",
    "adopt_log",
    "audit_public_key",
    "audit_inclusion_proof",
    "audit_consistency_proof",
    "audit_export",
    "log_run",
    "start_run",
    "log_event",
    "log_step",
    # reads a name of the statement that it is called for, which means what it means there
    "protect_children",
    # trigger functions
    "sign_audit_row",
    "refuse_change",
    "capture_change",
    "check_policy_row",
    "record_policy_change",
    "record_policy_deletion",
    "lock_policies",
    "guard_run",
    "guard_run_event",
    "record_run",
    "check_bounds",
}


def functions(db):
    return db.execute(
        "SELECT p.proname::text, p.oid::regprocedure::text, l.lanname::text, p.prosecdef, p.proconfig, "
        "p.proacl::text[], p.prosqlbody IS NOT NULL FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
        "WHERE p.pronamespace = 'skill_system'::regnamespace ORDER BY 2"
    ).fetchall()


def test_every_function_pins_its_search_path_or_is_known_to_need_none(db):
    found = functions(db)
    unpinned = {
        name
        for name, _, language, _, config, *_ in found
        if not any(c.startswith("search_path=") for c in config or [])
    }
    assert unpinned <= PINNED_IN_THE_LIBRARY
    assert PINNED_IN_THE_LIBRARY <= unpinned, "the list of exceptions is longer than need be"
    assert [s for name, s, language, *_ in found if name in PINNED_IN_THE_LIBRARY and language != "c"] == []
    paths = {c for *_, config, _, _ in found for c in config or [] if c.startswith("search_path=")}
    assert paths <= {"search_path=pg_catalog, pg_temp"}, "pg_temp must come last and nobody else's schema at all"


def test_sql_functions_were_parsed_at_their_creation(db):
    found = functions(db)
    assert [s for _, s, language, *_, body in found if language == "sql" and not body] == []
    assert {language for _, _, language, *_ in found} <= {"c", "sql"}


def test_no_function_is_security_definer(db):
    assert [s for _, s, _, definer, *_ in functions(db) if definer] == []


def test_no_function_is_for_everybody(db):
    assert [
        s for _, s, _, _, _, acl, _ in functions(db) if acl is None or any(entry.startswith("=") for entry in acl)
    ] == []


def test_views_run_with_the_rights_of_the_caller(db):
    views = db.execute(
        "SELECT relname::text, coalesce(reloptions::text[], '{}') FROM pg_class "
        "WHERE relnamespace = 'skill_system'::regnamespace AND relkind IN ('v', 'm')"
    ).fetchall()
    assert views
    assert [name for name, options in views if "security_invoker=true" not in options] == []


ATTACK = """
CREATE SCHEMA evil;
CREATE TABLE evil.proof (who text, what text);
CREATE FUNCTION evil.hit(what text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO evil.proof
    VALUES (current_user, what); RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $f$;
-- operators, for every pair of types that the extension compares
DO $$
DECLARE t text; op text;
BEGIN
    FOREACH t IN ARRAY ARRAY['text', 'bigint', 'integer', 'uuid', 'boolean', 'timestamptz', 'name', 'oid', 'jsonb',
        'text[]', 'numeric', 'date', '"char"', 'double precision', 'skill_system.run_status'] LOOP
        EXECUTE
            format('CREATE FUNCTION evil.yes(%1$s, %1$s) RETURNS boolean '
            'LANGUAGE sql AS $f$ SELECT evil.hit(''operator %1$s'') $f$', t);
        FOREACH op IN ARRAY ARRAY['=', '<>', '>=', '<=', '<', '>', '||', '->', '->>', '~', '+', '-', '@>'] LOOP
            EXECUTE format('CREATE OPERATOR evil.%2$s (LEFTARG = %1$s, RIGHTARG = %1$s, FUNCTION = evil.yes)', t, op);
        END LOOP;
    END LOOP;
    CREATE FUNCTION evil.yes_get(jsonb, text) RETURNS jsonb
        LANGUAGE sql AS 'SELECT to_jsonb(evil.hit(''operator ->''))';
    CREATE OPERATOR evil.-> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = evil.yes_get);
    CREATE FUNCTION evil.yes_gett(jsonb, text) RETURNS text LANGUAGE sql AS 'SELECT evil.hit(''operator ->>'')::text';
    CREATE OPERATOR evil.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = evil.yes_gett);
END $$;
-- functions
DO $$
DECLARE f text;
BEGIN
    FOREACH f IN ARRAY ARRAY[
        'now() RETURNS timestamptz', 'clock_timestamp() RETURNS timestamptz', 'current_tenant() RETURNS text',
            'count(anyelement) RETURNS bigint', 'format(text, text) RETURNS text',
            'format(text, text, text) RETURNS text',
        'unnest(text[]) RETURNS text', 'unnest(bigint[]) RETURNS bigint', 'coalesce_text(text, text) RETURNS text',
            'quote_ident(text) RETURNS text', 'to_regclass(text) RETURNS regclass',
            'date_trunc(text, timestamp) RETURNS timestamp',
        'to_char(timestamp, text) RETURNS text', 'jsonb_build_object(VARIADIC text[]) RETURNS jsonb',
            'lower(text) RETURNS text', 'min(timestamptz) RETURNS timestamptz',
            'pg_partition_tree(regclass) RETURNS text',
        'audit_problem(uuid, uuid, text, text, jsonb, text, text, timestamptz, timestamptz, bigint, '
            'text, text, text, text) RETURNS text', 'refuse_change() RETURNS text', 'stuck_after() RETURNS interval'
    ] LOOP
        EXECUTE
            format('CREATE FUNCTION evil.%s LANGUAGE plpgsql AS $f$ BEGIN PERFORM evil.hit(%L); RETURN NULL; END $f$',
            f, f);
    END LOOP;
END $$;
CREATE TABLE evil.policy_profiles (LIKE skill_system.policy_profiles INCLUDING DEFAULTS);
INSERT INTO evil.policy_profiles (id, name, allowed_effects, tenant_id)
    VALUES (1, 'locked', '{**}', 'default'), (2, 'mine', '{**}', 'default');
CREATE TABLE evil.policy_versions (LIKE skill_system.policy_versions);
CREATE TABLE evil.audit_state (only_one boolean DEFAULT true, log_id uuid, created_at timestamptz);
INSERT INTO evil.audit_state VALUES (true, '00000000-0000-0000-0000-000000000000', now());
CREATE TABLE evil.audit_logs (LIKE skill_system.audit_logs);
CREATE TABLE evil.runs (LIKE skill_system.runs);
CREATE TABLE evil.run_events (LIKE skill_system.run_events);
CREATE TABLE evil.pg_class (oid oid, relname name, relkind "char", relpersistence "char", relnamespace oid,
    relowner oid);
CREATE TABLE evil.pg_trigger (tgrelid oid, tgname name, tgenabled "char", tgfoid oid);
CREATE TABLE evil.pg_inherits (inhrelid oid, inhparent oid);
CREATE TABLE evil.pg_proc (oid oid, prosrc text, proname name);
CREATE TABLE evil.pg_namespace (oid oid, nspname name);
CREATE TABLE evil.pg_attribute (attrelid oid, attname name, attnum int2, attisdropped boolean);
CREATE TYPE evil.text AS ENUM ('x');
CREATE TYPE evil.jsonb AS ENUM ('x');
CREATE TYPE evil.regclass AS ENUM ('x');
CREATE TYPE evil.timestamptz AS ENUM ('x');
"""


FILING = "(SELECT id FROM skill_system.filing_checklists WHERE entity_id OPERATOR(pg_catalog.=) '42-501-20130')"
PROPOSAL = "(SELECT id FROM skill_system.rule_versions WHERE version OPERATOR(pg_catalog.=) 2)"
FROZEN = "(SELECT id FROM skill_system.filing_rule_snapshots WHERE NOT is_current)"


# A call of every function of the extension, in an order that makes sense.
def zipped(files):
    """A zip as a bytea literal, the same each time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return "'\\x" + out.getvalue().hex() + "'"


SKILL = (
    "E'---\\nname: {name}\\ndescription: Fills in forms. {more}\\n---\\n\\nDo it.\\n\\n```skill-manifest\\n"
    '{{"schema_version": "2.0", "id": "{name}-id", "version": "{version}", "effects": ["db.read"], '
    '"operations": {{"fill": {{"description": "x"}}}}, "requires": []}}\\n```\\n\''
)

CALLS = [
    (
        "SELECT allowed, blocked_effects, policy_version "
        "FROM skill_system.check_policy('locked', ARRAY['db.read'::pg_catalog.text])"
    ),
    "SELECT allowed, reason FROM skill_system.check_policy('mine', '{db.read}'::pg_catalog.text)",
    "SELECT allowed FROM skill_system.check_policy('dev', '[\"db.read\"]'::pg_catalog.jsonb)",
    "SELECT allowed FROM skill_system.enforce_policy('dev', '{db.read}'::pg_catalog.text)",
    "SELECT allowed FROM skill_system.enforce_policy('watched', '{db.write}'::pg_catalog.text)",
    "SELECT allowed FROM skill_system.check_exec('dev', '{git}')",
    "SELECT allowed FROM skill_system.check_write('dev', '/x')",
    "SELECT * FROM skill_system.explain_policy('locked', '{db.read}')",
    "SELECT * FROM skill_system.explain_policy('locked', '{db.read}'::pg_catalog.text[])",
    "SELECT * FROM skill_system.explain_policy('locked', '[\"db.read\"]'::pg_catalog.jsonb)",
    "SELECT allowed FROM skill_system.check_policy('dev', 'db.read')",
    "SELECT allowed FROM skill_system.check_effects('dev', '[\"db.read\"]')",
    "SELECT allowed FROM skill_system.enforce_effects('dev', '\"db.read\"')",
    "SELECT * FROM skill_system.explain_effects('locked', '[\"db.read\"]')",
    "SELECT * FROM skill_system.effective_policy('dev')",
    "SELECT * FROM skill_system.lint_policy('dev')",
    "SELECT skill_system.assert_allows('dev', 'db.read')",
    "SELECT skill_system.assert_denies('locked', 'db.read')",
    "SELECT skill_system.effect_problem('X')",
    "SELECT skill_system.current_tenant()",
    "SELECT pg_catalog.uuid_send(skill_system.uuid_v7()) IS NULL",
    "SELECT skill_system.append_audit('attack', '{}') IS NULL",
    "SELECT skill_system.log_denial('attack', '{}') IS NULL",
    "SELECT sealed > 0 AND tree_size > 0 AND blocked_by IS NULL FROM skill_system.seal_audit()",
    "SELECT skill_system.audit_checkpoint() IS NULL",
    "SELECT active, verifier_key IS NULL FROM skill_system.audit_public_key()",
    (
        "SELECT leaf_index, pg_catalog.length(proof) IS NULL "
        "FROM skill_system.audit_inclusion_proof((SELECT record_id FROM skill_system.audit_leaves(0, 1)))"
    ),
    "SELECT pg_catalog.length(proof) IS NULL FROM skill_system.audit_consistency_proof(1, 3)",
    "SELECT skill_system.audit_leaf_index((SELECT record_id FROM skill_system.audit_leaves(1, 1)))",
    "SELECT skill_system.audit_tile(0, 0) IS NULL",
    "SELECT pg_catalog.count(*) > 2 FROM skill_system.audit_export()",
    "SELECT pid FROM skill_system.audit_verify_progress_entries()",
    "SELECT tree_size FROM skill_system.ledger_status_entries()",
    "SELECT tree_size FROM skill_system.ledger_status",
    "SELECT pid, phase FROM skill_system.audit_verify_progress",
    "SELECT * FROM skill_system.verify_audit()",
    "SELECT pg_catalog.count(*) IS NULL FROM skill_system.audit_fingerprint()",
    "SELECT key_present, key_active FROM skill_system.audit_status()",
    "SELECT skill_system.create_policy('made', allow => '{db.read}') IS NULL",
    "SELECT * FROM skill_system.install_starter_policies()",
    (
        "UPDATE skill_system.policy_profiles SET denied_effects = '{net.fetch}' "
        "WHERE name OPERATOR(pg_catalog.=) 'made' RETURNING version, name"
    ),
    "DELETE FROM skill_system.policy_profiles WHERE name OPERATOR(pg_catalog.=) 'made' RETURNING name",
    "SELECT skill_system.create_audit_partition('2041-01-01')",
    "SELECT skill_system.make_append_only('public.kept')",
    "SELECT skill_system.audit_table('public.watched')",
    "SELECT skill_system.stop_audit_table('public.watched')",
    "SELECT skill_system.audit_table('public.watched')",
    "INSERT INTO public.watched VALUES (1, 'x') RETURNING id",
    "UPDATE public.watched SET note = 'y' RETURNING note",
    "SELECT library IS NULL FROM skill_system.version_info()",
    "SELECT pg_catalog.count(task) FROM skill_system.help()",
    "SELECT task, call FROM skill_system.help('log_run')",
    'SELECT "check", status FROM skill_system.health()',
    "SELECT skill_system.log_run('skill', 'op', 'ok', 5, policy_name => 'dev', idempotency_key => 'k') IS NULL",
    "SELECT skill_system.log_run('skill', 'op', 'ok', 5, policy_name => 'dev', idempotency_key => 'k') IS NULL",
    "SELECT skill_system.start_run('goal', 'dev', 'agent') IS NULL",
    "SELECT skill_system.log_event((SELECT pg_catalog.max(id) FROM skill_system.runs), 'note') IS NULL",
    "SELECT skill_system.log_step((SELECT pg_catalog.max(id) FROM skill_system.runs), 'skill', 'op', 'ok', 7) IS NULL",
    'SELECT skill_system.log_events((SELECT pg_catalog.max(id) FROM skill_system.runs), \'[{"event_type": "x"}]\')',
    "SELECT skill_system.finish_run((SELECT pg_catalog.max(id) FROM skill_system.runs), 'ok')",
    "SELECT count, succeeded, p50_duration_ms FROM skill_system.run_stats",
    "SELECT steps, succeeded, cost_usd FROM skill_system.run_stats_by_agent",
    "SELECT skill, duration_ms FROM skill_system.run_steps",
    "SELECT id FROM skill_system.runs_in_progress",
    "SELECT id FROM skill_system.stuck_runs",
    "SELECT skill_system.stuck_after()",
    "SELECT pg_catalog.jsonb_typeof(skill_system.run_otlp((SELECT pg_catalog.max(id) FROM skill_system.runs)))",
    "SELECT pg_catalog.left(skill_system.run_page((SELECT pg_catalog.max(id) FROM skill_system.runs)), 9)",
    "SELECT * FROM skill_system.maintain()",
    "SELECT skill_system.delete_rows('skill_system.agents', '{\"id\": \"none\"}')",
    "SELECT * FROM skill_system.repair()",
    "SELECT * FROM skill_system.import_legacy('legacy')",
    "SELECT sealed IS NULL FROM skill_system.seal_audit()",
    "SELECT skill_system.create_audit_partition('2024-03-01')",
    "SELECT skill_system.set_legal_hold('2024-04-01', NULL, 'matter')",
    "SELECT step, partition FROM skill_system.retire_audit_partition('2024-03-01', 'schedule')",
    "SELECT step, partition FROM skill_system.retire_audit_partition('2024-03-01', 'schedule')",
    "SELECT skill_system.withdraw_audit_retirement('2024-03-01', 'not yet')",
    "SELECT skill_system.release_legal_hold(1, 'closed')",
    "SELECT hold_id, since, until, released_by, release_reason FROM skill_system.audit_legal_holds",
    "SELECT partition FROM skill_system.audit_retirements",
    # compliance
    "SELECT * FROM skill_system.install_validation_presets()",
    (
        "INSERT INTO skill_system.entity_type_definitions (type_key, display_name) VALUES ('well', 'Well') "
        "RETURNING type_key"
    ),
    "SELECT * FROM skill_system.install_texas_rrc()",
    "UPDATE skill_system.entity_type_definitions SET icon = 'x' RETURNING icon",
    (
        "INSERT INTO skill_system.entity_field_definitions (type_id, field_key, label, input_type, "
        "validation_preset) SELECT type_id, 'api', 'API', 'text', 'api_well_number' "
        "FROM skill_system.entity_type_definitions RETURNING field_key"
    ),
    (
        "INSERT INTO skill_system.rrc_field_mappings (type_id, rrc_field_key, entity_field_id) "
        "SELECT type_id, 'API_NO', field_id FROM skill_system.entity_field_definitions RETURNING rrc_field_key"
    ),
    "SELECT * FROM skill_system.validate_entity('well', '{\"api\": \"x\"}')",
    "SELECT skill_system.entity_json_schema('well') OPERATOR(pg_catalog.->>) 'title'",
    'SELECT * FROM skill_system.map_import(\'well\', \'{"API_NO": "4250120130", "X": 1}\')',
    "SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', '2020-01-01', '{\"feet\": 467}', 'manual')",
    "SELECT version FROM skill_system.create_template('rule_37', '[{\"label\": \"Plat\"}]', '[0]')",
    "SELECT status, version FROM skill_system.create_checklist('42-501-20130', 'well', 'rule_37')",
    f"SELECT status, version FROM skill_system.update_checklist_item({FILING}, 0, 'in_progress')",
    f"SELECT * FROM skill_system.missing_items({FILING})",
    f"SELECT content_sha256, size_bytes FROM skill_system.add_artifact({FILING}, 0, 'document', 'plat', 'text')",
    f"SELECT status FROM skill_system.update_checklist_item({FILING}, 0, 'complete')",
    f"SELECT skill_system.snapshot_rules({FILING})",
    f"SELECT status FROM skill_system.submit_checklist({FILING})",
    (
        "SELECT status FROM skill_system.propose_rule('SWR_37', 'spacing', '2021-01-01', '{\"feet\": 330}', "
        "'manual', draft => true)"
    ),
    f"SELECT status FROM skill_system.submit_rule({PROPOSAL})",
    f"SELECT status, stale_snapshots FROM skill_system.review_rule({PROPOSAL}, 'approved')",
    f"SELECT patch, lines FROM skill_system.diff_rules({PROPOSAL}, {PROPOSAL})",
    "SELECT version, superseded_date FROM skill_system.rule_as_of('SWR_37', '2020-06-01')",
    "SELECT rule_identifier, frozen_version, current_version FROM skill_system.stale_filings()",
    f"SELECT * FROM skill_system.snapshot_diff({FROZEN})",
    f"SELECT skill_system.acknowledge_stale({FROZEN}, 'ann', 'known')",
    f"SELECT skill_system.refresh_snapshot({FROZEN}) IS NULL",
    f"SELECT status FROM skill_system.submit_checklist({FILING})",
    (
        f"SELECT status FROM skill_system.review_checklist({FILING}, 'approved', expected_version => "
        f"(SELECT version FROM skill_system.filing_checklists WHERE id OPERATOR(pg_catalog.=) {FILING}))"
    ),
    f"SELECT status FROM skill_system.file_checklist({FILING})",
    f"SELECT json_typeof FROM pg_catalog.json_typeof(skill_system.compliance_snapshot({FILING}))",
    "SELECT status FROM skill_system.create_checklist('42-501-20131', 'well', 'rule_37')",
    (
        "SELECT status FROM skill_system.mark_exception((SELECT id FROM skill_system.filing_checklists "
        "WHERE entity_id OPERATOR(pg_catalog.=) '42-501-20131'), 'plugged')"
    ),
    "SELECT status FROM skill_system.create_checklist('42-501-20132', 'well', 'rule_37', idempotency_key => 'k')",
    "SELECT status FROM skill_system.create_checklist('42-501-20132', 'well', 'rule_37', idempotency_key => 'k')",
    (
        "SELECT size_bytes FROM skill_system.add_artifact((SELECT id FROM skill_system.filing_checklists "
        "WHERE entity_id OPERATOR(pg_catalog.=) '42-501-20132'), 0, 'pdf', 'a', 'b')"
    ),
    (
        "SELECT status FROM skill_system.withdraw_artifact((SELECT id FROM skill_system.checklist_artifacts "
        "WHERE name OPERATOR(pg_catalog.=) 'a'::pg_catalog.text), 'wrong')"
    ),
    (
        "SELECT status FROM skill_system.withdraw_checklist((SELECT id FROM skill_system.filing_checklists "
        "WHERE entity_id OPERATOR(pg_catalog.=) '42-501-20132'))"
    ),
    "SELECT version FROM skill_system.publish_rule('SWR_9', 'x', '2020-01-01', '{}', 'manual')",
    "SELECT version FROM skill_system.publish_rule('SWR_9', 'x', '9000-01-01', '{}', 'manual')",
    (
        "SELECT status FROM skill_system.withdraw_rule((SELECT id FROM skill_system.rule_versions WHERE rule_identifier "
        "OPERATOR(pg_catalog.=) 'SWR_9'::pg_catalog.text AND version OPERATOR(pg_catalog.=) 2), 'wrong')"
    ),
    "SELECT version FROM skill_system.retire_template('rule_37', 'over')",
    "SELECT pg_catalog.count(action) FROM skill_system.checklist_transitions()",
    "SELECT * FROM skill_system.assess_compliance('default', '42-501-20130', 'well', 'form_pr', 'compliant')",
    "SELECT * FROM skill_system.assess_compliance('default', '42-501-20130')",
    "SELECT entity_id, compliance_domain, status FROM skill_system.compliance_cells",
    "SELECT compliance_domain, status, entities FROM skill_system.compliance_counts",
    "SELECT entity_id, statuses, worst FROM skill_system.compliance_matrix()",
    "SELECT * FROM skill_system.due_filings()",
    "SELECT pg_catalog.length(skill_system.compliance_report()) OPERATOR(pg_catalog.>) 5000",
    "SELECT pg_catalog.jsonb_typeof(skill_system.oscal_assessment_results())",
    # skills
    f"SELECT * FROM skill_system.validate_skill({SKILL.format(name='forms', more='', version='1.0.0')})",
    (
        "SELECT skill_name, version, status "
        f"FROM skill_system.register_skill({SKILL.format(name='forms', more='One.', version='1.0.0')}, "
        f'files => \'{{"references/a.md": "a"}}\')'
    ),
    # Two of its members are other ones for each log and version.
    (
        "SELECT skill_system.skill_approval_text('forms')::pg_catalog.jsonb "
        "OPERATOR(pg_catalog.-) '{log_id,review_id}'::pg_catalog.text[]"
    ),
    "SELECT skill_system.accept_store_signatures('team:old', true)",
    "SELECT skill_system.drop_skill_namespace('team:old')",
    (
        "SELECT "
        "skill_system.add_skill_approver('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', "
        "'alice')"
    ),
    "SELECT skill_system.revoke_skill_approver('21fe31dfa154a261')",
    (
        "SELECT version, status FROM skill_system.set_skill_status('forms', 'approved', "
        "(SELECT version FROM skill_system.skill_version_list('forms') LIMIT 1))"
    ),
    (
        "SELECT version, status "
        f"FROM skill_system.register_skill({SKILL.format(name='forms', more='Two.', version='1.1.0')})"
    ),
    (
        "SELECT version, status FROM skill_system.set_skill_status('forms', 'approved', "
        "(SELECT version FROM skill_system.skill_version_list('forms') LIMIT 1))"
    ),
    "SELECT skill_system.export_skill('forms')",
    "SELECT path, sha256 FROM skill_system.export_skill_files('forms')",
    "SELECT skill_system.export_skill_archive('forms')",
    "SELECT allowed, reason FROM skill_system.check_skill('dev', 'forms', 'fill')",
    "SELECT skill_name, body, enabled, effects FROM skill_system.skills",
    "SELECT version, semver FROM skill_system.resolve_skill('forms', '^1.0')",
    "SELECT skill_name, version FROM skill_system.resolve_dependencies('forms')",
    "SELECT * FROM skill_system.check_dependencies()",
    "SELECT current_version FROM skill_system.pin_skill('forms')",
    "SELECT current_version FROM skill_system.unpin_skill('forms')",
    "SELECT current_version FROM skill_system.rollback_skill('forms')",
    "SELECT version FROM skill_system.set_skill_channel('forms', 'stable')",
    "SELECT skill_system.drop_skill_channel('forms', 'stable')",
    "SELECT version, semver, status, served FROM skill_system.skill_version_list('forms')",
    "SELECT path, change, added, removed FROM skill_system.diff_skill_versions('forms')",
    "SELECT skill_system.skills_token() IS NULL",
    "SELECT pg_catalog.count(*) FROM skill_system.skill_changes()",
    "SELECT skill_system.set_skill_embedding('forms', '{1,0}')",
    "SELECT skill_name, matched FROM skill_system.search_skills('fill in a form', embedding => '{1,0}')",
    "SELECT skill_system.log_run('forms', 'fill', 'ok') IS NULL",
    "SELECT skill_name, version FROM skill_system.run_skill_versions",
    # the client API of skillscript's SkillStore
    (
        "SELECT skill_system.skill_store_store('hello', E'# Skill: hello\n# Status: Draft\nx\n') "
        "OPERATOR(pg_catalog.->>) 'version'"
    ),
    (
        "SELECT skill_system.skill_store_update_status('hello', 'Approved', version => "
        "skill_system.skill_store_load('hello') OPERATOR(pg_catalog.->>) 'version') OPERATOR(pg_catalog.->>) 'version'"
    ),
    "SELECT skill_system.skill_store_load('hello') OPERATOR(pg_catalog.->>) 'source'",
    "SELECT skill_system.skill_store_metadata('hello') OPERATOR(pg_catalog.->>) 'status'",
    'SELECT pg_catalog.jsonb_array_length(skill_system.skill_store_query(\'{"name_pattern": "^h"}\'))',
    "SELECT pg_catalog.jsonb_array_length(skill_system.skill_store_versions('hello'))",
    "SELECT skill_system.skill_store_version()",
    "SELECT skill_system.skill_store_manifest() IS NULL",
    "SELECT skill_system.skill_store_static_capabilities()",
    "SELECT skill_system.skill_store_delete('hello')",
    # the client API of skills-runtime-sdk
    "SELECT skill_system.drop_client_schema('skills_runtime', 'agent')",
    "SELECT skill_system.create_client_schema('skills_runtime', 'agent')",
    "SELECT skill_system.drop_client_schema('skills_runtime', 'agent')",
    "SELECT skill_system.create_client_schema('skills_runtime', 'agent')",
    (
        "INSERT INTO agent.skills_catalog (namespace, skill_name, description, body) "
        "VALUES ('team:pdf', 'pdf-forms', 'Fills in PDF forms.', '# PDF') RETURNING enabled"
    ),
    (
        "UPDATE agent.skills_catalog SET body = '# PDF forms' "
        "WHERE skill_name OPERATOR(pg_catalog.=) 'pdf-forms' RETURNING body_size"
    ),
    "DELETE FROM agent.skills_catalog WHERE skill_name OPERATOR(pg_catalog.=) 'pdf-forms' RETURNING skill_name",
    "SELECT mention, found, code FROM skill_system.resolve_mentions('use $[default].forms and $[default].nothing')",
    "SELECT skill_system.inject_skill('forms') IS NULL",
    "SELECT skill_name, code FROM skill_system.scan_skills('default')",
    'SELECT * FROM skill_system.preflight_skills(\'{"spaces": [{"id": "a", "namespace": "X", "sources": []}]}\')',
    "SELECT * FROM skill_system.preflight_skills_yaml('spaces: [{id: a, namespace: X, sources: []}]')",
    f"SELECT * FROM skill_system.check_skill_bundle({zipped({'actions/run.sh': 'echo'})})",
    f"SELECT version FROM skill_system.register_skill_bundle('forms', {zipped({'actions/run.sh': 'echo'})})",
    "SELECT skill_system.skill_bundle('forms') IS NULL",
    "SELECT pg_catalog.count(*) > 1 FROM skill_system.redis_export('skills:')",
    # the client API of AEGIS
    (
        "SELECT skill_name, status FROM skill_system.define_skill('rule37', "
        '\'{"description": "Spacing exceptions"}\', \'{"steps": ["look"]}\', effects => \'{db.read}\')'
    ),
    (
        "SELECT status FROM skill_system.set_skill_status('rule37', 'approved', "
        "(SELECT version FROM skill_system.skill_version_list('rule37') LIMIT 1))"
    ),
    (
        "INSERT INTO skill_system.agent_definitions (agent_key, root_skill_key) VALUES ('rule_37', 'rule37') "
        "RETURNING agent_key"
    ),
    (
        "INSERT INTO skill_system.skill_artifacts (id, skill_id, name, content) SELECT 'one', id, 'one', 'text' "
        "FROM skill_system.skills WHERE skill_name OPERATOR(pg_catalog.=) 'rule37' RETURNING content_hash"
    ),
    "SELECT skill, name, token_estimate FROM skill_system.skill_catalog('rule_37', policy_name => 'dev')",
    "SELECT already_loaded, definition FROM skill_system.load_skill('rule37', conversation_id => 'c')",
    "SELECT already_loaded, content FROM skill_system.load_artifact('one', conversation_id => 'c')",
    "SELECT skill_system.reset_injections('c')",
    "SELECT * FROM skill_system.check_integrity()",
    "SELECT skill_system.assert_integrity()",
    # what other systems read
    "SELECT skill_system.available_skills_prompt()",
    "SELECT skill_system.skills_discovery_index('https://example.com')",
    "SELECT skill_system.mcp_skills_list()",
    "SELECT skill_system.mcp_skills_get('skill://default/forms/SKILL.md')",
    "SELECT skill_system.skills_index() OPERATOR(pg_catalog.-) 'generated_at'::pg_catalog.text",
    "SELECT skill_system.delete_skill('forms')",
]
PREPARE = (
    "CREATE TABLE public.kept (id int); CREATE TABLE public.watched (id int PRIMARY KEY, note text); "
    "SELECT * FROM skill_system.install_starter_policies();"
    "SELECT skill_system.create_policy('watched', mode => 'observe');"
    "CREATE SCHEMA legacy; CREATE TABLE legacy.policy_profiles (id bigserial PRIMARY KEY, "
    "name text NOT NULL UNIQUE, allowed_effects text[] NOT NULL DEFAULT '{}', "
    "allowed_exec text[] NOT NULL DEFAULT '{}',"
    "allowed_write_roots text[] NOT NULL DEFAULT '{}', metadata jsonb NOT NULL DEFAULT '{}', "
    "created_at timestamptz NOT NULL DEFAULT now());"
    "CREATE TABLE legacy.runs (id bigserial PRIMARY KEY, task_spec_id bigint, "
    "status text NOT NULL DEFAULT 'queued', started_at timestamptz, ended_at timestamptz, "
    "effective_policy jsonb NOT NULL DEFAULT '{}',"
    "metrics jsonb NOT NULL DEFAULT '{}', error text, created_at timestamptz NOT NULL DEFAULT now());"
    "CREATE TABLE legacy.run_events (id bigserial PRIMARY KEY, run_id bigint NOT NULL, "
    "ts timestamptz NOT NULL DEFAULT now(), level text NOT NULL DEFAULT 'info', event_type text NOT NULL, "
    "payload jsonb NOT NULL DEFAULT '{}');"
    "INSERT INTO legacy.runs (id, status) VALUES (700, 'succeeded'); "
    "INSERT INTO legacy.run_events (id, run_id, event_type) VALUES (900, 700, 'note');"
    "INSERT INTO legacy.policy_profiles (id, name, allowed_effects) VALUES (77, 'old', '{db.read}')"
)


def answers(connection):
    found = []
    for statement in CALLS:
        try:
            found.append((statement, connection.execute(statement).fetchall()))
        except psycopg.Error as error:
            found.append((statement, (error.sqlstate, error.diag.message_primary)))
    return found


def test_every_function_answers_as_without_the_attack(db, connect, fresh_database):
    plain = connect(dbname=fresh_database())
    attacked_database = fresh_database()
    attacked = connect(dbname=attacked_database)
    for connection in (plain, attacked):
        connection.execute(PREPARE)
    attacked.execute(ATTACK)
    # The victim is a superuser who has the attacker's schema first, before pg_catalog even.
    attacked.execute("SELECT set_config('search_path', 'evil, public, pg_catalog, pg_temp', false)")
    expected, found = answers(plain), answers(attacked)
    assert [pair for pair in expected if isinstance(pair[1], tuple)] == []
    assert found == expected
    hits = attacked.execute("SELECT what, pg_catalog.count(*) FROM evil.proof GROUP BY what").fetchall()
    assert hits == []
    check = connect(dbname=attacked_database)
    assert check.execute("SELECT pg_catalog.count(*) FROM evil.audit_logs").fetchone()[0] == 0
    assert check.execute("SELECT pg_catalog.count(*) FROM evil.policy_versions").fetchone()[0] == 0
    assert check.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []


def test_the_list_of_calls_names_every_function(db):
    named = " ".join(CALLS)
    known = {
        row[0]
        for row in db.execute(
            "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace "
            "AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)"
        )
    }
    # create_keyring() and rotate_audit_key() change the keyring, which both databases share, the next three are called
    # by verify_audit() and seal_audit(), and nothing is adopted here.
    assert {name for name in known if f"skill_system.{name}(" not in named} <= {
        "create_keyring",
        "rotate_audit_key",
        "audit_problem",
        "audit_record_digest",
        "audit_leaf_hash",
        "adopt_log",
    }


def test_the_attack_is_one(connect, fresh_database):
    """Proof that the trap works: an ordinary statement under this path does run the attacker's code."""
    connection = connect(dbname=fresh_database())
    connection.execute(ATTACK)
    connection.execute("SELECT set_config('search_path', 'evil, public, pg_catalog, pg_temp', false)")
    connection.execute("SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text, now()")
    assert {what for (what,) in connection.execute("SELECT what FROM evil.proof")} >= {
        "operator text",
        "now() RETURNS timestamptz",
    }


def test_temporary_objects_do_not_shadow(connect, database, roles):
    connection = connect("test_agent")
    connection.execute(
        "CREATE TEMP TABLE policy_profiles AS SELECT 'locked'::text AS name, '{**}'::text[] AS allowed_effects"
    )
    connection.execute("CREATE TEMP TABLE audit_state AS SELECT '00000000-0000-0000-0000-000000000000'::uuid AS log_id")
    connection.execute("CREATE TEMP TABLE pg_trigger AS SELECT 1 AS x")
    connect().execute("SELECT * FROM skill_system.install_starter_policies()")
    assert (
        connection.execute("SELECT allowed FROM skill_system.check_policy('locked', '{db.read}'::text)").fetchone()[0]
        is False
    )
    connection.execute("SELECT skill_system.append_audit('x', '{}')")
    assert connect().execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
