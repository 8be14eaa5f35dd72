-- Skills: what a psql user sees, errors with detail and hint included. Ids and times vary, so they are never printed.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = error; -- no warning of roles that have members
CREATE EXTENSION skill_system;
RESET client_min_messages;
\pset null '(null)'
SELECT count(*) FROM skill_system.install_starter_policies();

-- A SKILL.md in and out.
SELECT E'---\nname: pdf-forms\ndescription: Fills in PDF forms. Use it when a form is to be completed.\nmetadata:\n  tags: forms, '
    'pdf\n---\n\n# PDF forms\n\n'
    '```skill-manifest\n{"schema_version": "2.0", "id": "pdf", "version": "1.2.0", "effects": ["fs.read", "net.fetch"], "operations": '
        '{"fill": {"description": "Fills one form."}}}\n```\n' AS source \gset
SELECT namespace, skill_name, version, status, current_version, content_hash, semver, created
    FROM skill_system.register_skill(:'source', files => '{"references/fields.md": "# Fields"}');
SELECT namespace, skill_name, version, created FROM skill_system.register_skill(:'source', files => '{"references/fields.md": "# Fields"}');
SELECT skill_system.export_skill('pdf-forms') = :'source' AS the_same_bytes;
SELECT path, size, sha256 FROM skill_system.export_skill_files('pdf-forms');
SELECT * FROM skill_system.validate_skill(E'---\nname: PDF Forms\ndescription: Use when: asked\nname: x\n---\n');
SELECT * FROM skill_system.register_skill(E'---\nname: PDF Forms\ndescription: ""\n---\n');
SELECT * FROM skill_system.register_skill(:'source', 'No Namespace');
SELECT * FROM skill_system.register_skill(:'source', files => '{"../x": "a"}');

-- Decisions. An approval names what was read.
SELECT * FROM skill_system.set_skill_status('pdf-forms', 'approved');
SELECT version AS newest FROM skill_system.skill_version_list('pdf-forms') LIMIT 1 \gset
SELECT decision, reason FROM skill_system.check_skill('dev', 'pdf-forms', 'fill');
SELECT version, status, current_version FROM skill_system.set_skill_status('pdf-forms', 'approved', :'newest', reason => 'read it');
SELECT decision, blocked_effects, reason FROM skill_system.check_skill('dev', 'pdf-forms', 'fill');
SELECT decision, reason FROM skill_system.check_skill('dev', 'pdf-forms', 'shred');
SELECT decision, reason FROM skill_system.check_skill('dev', 'nobody');
SELECT decision, reason FROM skill_system.check_skill('nobody', 'pdf-forms');

-- Errors of class SK.
SELECT * FROM skill_system.set_skill_status('nobody', 'approved', :'newest');
\echo :SQLSTATE
SELECT * FROM skill_system.set_skill_status('pdf-forms', 'approved', '000000000000');
\echo :SQLSTATE
SELECT * FROM skill_system.set_skill_status('pdf-forms', 'Approved');
SET skill_system.signed_approvals = on;
SELECT version, status FROM skill_system.set_skill_status('pdf-forms', 'draft');
SELECT * FROM skill_system.set_skill_status('pdf-forms', 'approved', :'newest');
\echo :SQLSTATE
SELECT * FROM skill_system.set_skill_status('pdf-forms', 'approved', :'newest', signature => 'v1:AAAA');
RESET skill_system.signed_approvals;
SELECT version, status FROM skill_system.set_skill_status('pdf-forms', 'approved', :'newest');

-- Versions.
SELECT version, status, current_version FROM skill_system.register_skill(replace(:'source', '1.2.0', '1.3.0'));
SELECT version AS newest FROM skill_system.skill_version_list('pdf-forms') LIMIT 1 \gset
SELECT version, semver, status, served FROM skill_system.skill_version_list('pdf-forms');
SELECT version, semver FROM skill_system.resolve_skill('pdf-forms', '^1.0');
SELECT version, semver FROM skill_system.resolve_skill('pdf-forms', '^2');
SELECT path, change, added, removed, diff FROM skill_system.diff_skill_versions('pdf-forms');
SELECT current_version FROM skill_system.pin_skill('pdf-forms');
SELECT version, status, current_version FROM skill_system.set_skill_status('pdf-forms', 'approved', :'newest');
SELECT current_version FROM skill_system.unpin_skill('pdf-forms');
SELECT version, current_version FROM skill_system.set_skill_status('pdf-forms', 'approved', :'newest');
SELECT current_version FROM skill_system.rollback_skill('pdf-forms', reason => 'too new');
SELECT version FROM skill_system.set_skill_channel('pdf-forms', 'stable');
SELECT version FROM skill_system.resolve_skill('pdf-forms', 'stable');
SELECT * FROM skill_system.check_dependencies();

-- Reading.
SELECT regexp_replace(skill_system.available_skills_prompt(), '\s+', ' ', 'g');
SELECT skill, description, token_estimate FROM skill_system.skill_catalog();
SELECT skill, description FROM skill_system.skill_catalog(policy_name => 'readonly');
SELECT already_loaded, length(body) FROM skill_system.load_skill('pdf-forms', conversation_id => 'c-1');
SELECT already_loaded, length(body) FROM skill_system.load_skill('pdf-forms', conversation_id => 'c-1');
SELECT skill_name, matched FROM skill_system.search_skills('complete a form');
SELECT mention, found, code FROM skill_system.resolve_mentions('use $[default].pdf-forms, $[default].nobody and $[bad namespace].x');
SELECT skill_system.inject_skill('nobody', 10);
SELECT skill_system.log_run('pdf', 'fill', 'ok') IS NOT NULL AS logged;
SELECT skill, operation, skill_name, version, semver FROM skill_system.run_skill_versions;

-- The SkillStore functions.
SELECT skill_system.skill_store_static_capabilities();
SELECT skill_system.skill_store_store('hello', E'# Skill: hello\n# Status: Draft\n# Description: Says hi\nt:\n    '
    'emit(text="hi")\ndefault: t\n') - '{changed_at,changed_by}'::text[];
SELECT skill_system.skill_store_update_status('hello', 'Approved',
    version => left(skill_system.skill_store_load('hello') ->> 'content_hash', 12)) - '{changed_at,changed_by}'::text[];
SELECT skill_system.skill_store_load('hello') ->> 'source';
SELECT skill_system.skill_store_update_status('hello', 'Bogus');
SELECT skill_system.skill_store_load('hello', 'ffffffffffff');
\echo :SQLSTATE
SELECT skill_system.skill_store_load('nobody');
\echo :SQLSTATE
SELECT skill_system.skill_store_store('', 'x');
\echo :SQLSTATE
SELECT skill_system.skill_store_version();
SELECT skill_system.skill_store_delete('hello');
SELECT skill_system.skill_store_version();

-- The audit record.
SELECT skill_name, revision, action, version, previous_status, status, reason FROM skill_system.skill_history ORDER BY namespace, revision;
UPDATE skill_system.skill_history SET reason = 'another';
UPDATE skill_system.skill_versions SET body = 'another';
SELECT skill_system.delete_skill('pdf-forms', 'replaced');
SELECT count(*) FROM skill_system.skills;
SELECT problem FROM skill_system.verify_audit();
