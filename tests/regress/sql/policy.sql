-- Policy: may a skill have these effects, and which rule decided it.
-- Hashes and times vary, so they are compared, never printed.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = error; -- no warning of roles that have members
CREATE EXTENSION skill_system;
RESET client_min_messages;
\pset null '(null)'

-- The extension ships no rows; starters come from a function, which is safe to repeat.
SELECT count(*) FROM skill_system.policy_profiles;
SELECT * FROM skill_system.install_starter_policies();
SELECT * FROM skill_system.install_starter_policies();
SELECT name, allowed_effects, ask_effects, denied_effects, unlisted, mode, version FROM skill_system.policy_profiles ORDER BY name;

-- A decision: allowed, needs a person, denied.
\x on
SELECT allowed, blocked_effects, decision, ask_effects, reason, policy_version
    FROM skill_system.check_policy('dev', array['db.read', 'fs.write:/srv/app/x']);
SELECT allowed, blocked_effects, decision, ask_effects, reason, policy_version
    FROM skill_system.check_policy('dev', array['db.read', 'net.fetch', 'net.fetch']);
SELECT allowed, blocked_effects, decision, ask_effects, reason, policy_version
    FROM skill_system.check_policy('dev', array['net.fetch', 'mail.send', 'db.read', 'mail.send']);
SELECT allowed, blocked_effects, decision, ask_effects, reason, policy_version
    FROM skill_system.check_policy('readonly', array['db.write:public.orders', 'fs.write', 'git.write', 'proc.exec', 'db.read']);
\x off
-- The hash names a version.
SELECT c.policy_hash = v.content_hash AS same, v.version FROM skill_system.check_policy('dev', array['db.read']) c
JOIN skill_system.policy_versions v ON v.name = 'dev';

-- The three forms of effects, plain literals included.
SELECT allowed, blocked_effects FROM skill_system.check_policy('dev', '["db.read","proc.exec"]'::jsonb);
SELECT allowed, blocked_effects FROM skill_system.check_policy('dev', '["db.read","proc.exec"]');
SELECT allowed, blocked_effects FROM skill_system.check_policy('dev', '{db.read,proc.exec}');
SELECT allowed, blocked_effects FROM skill_system.check_policy('dev', array['db.read', 'proc.exec']);
SELECT allowed, blocked_effects FROM skill_system.check_policy('dev', '{"db.read","fs.write:/srv/a,b"}');

-- An empty list is allowed; invalid input is denied, without an error and without NULL.
\x on
SELECT allowed, blocked_effects, decision, ask_effects, reason, policy_version FROM skill_system.check_policy('dev', '{}'::text[]);
SELECT allowed, blocked_effects, decision, ask_effects, reason, policy_version FROM skill_system.check_policy('nobody', array['db.read']);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('nobody', '{}'::text[]);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy(NULL, array['db.read']);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', NULL::text[]);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', NULL::jsonb);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', NULL::text);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', array['db.read', NULL]);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '["db.read", 7]'::jsonb);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '["db.read", null]'::jsonb);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '{"effects": ["db.read"]}'::jsonb);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '"db.read"'::jsonb);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', 'null'::jsonb);
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', 'db.read');
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '["db.read"');
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '{db.read');
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '{{db.read}}');
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', '');
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', array['DB.read', 'db .read', '', 'db.*',
    'fs.write:etc/passwd']);
SELECT allowed, cardinality(blocked_effects), decision, reason
    FROM skill_system.check_policy('dev', array_fill('db.read'::text, ARRAY[1000]));
SELECT allowed, cardinality(blocked_effects) AS blocked, decision, reason
    FROM skill_system.check_policy('dev', array_fill('db.read'::text, ARRAY[1001]));
SELECT allowed, cardinality(blocked_effects) AS blocked, decision, reason
    FROM skill_system.check_policy('dev', (SELECT jsonb_agg('db.read' || g) FROM generate_series(1, 1001) g));
SELECT allowed, blocked_effects, decision, reason FROM skill_system.check_policy('dev', array[array['db.read', 'proc.exec'],
    array['fs.read', 'net.fetch']]);
\x off

-- Creating policies: scopes, wildcards, precedence.
SELECT skill_system.create_policy('scoped',
    allow => '{db.read:public.*,fs.write:/srv/app/**,net.fetch:*.example.com:443,git.**,tool.*}',
    ask => '{fs.write:/srv/app/config/**}',
    deny => '{fs.write:/srv/app/secret/**,git.push.force}') IS NOT NULL AS made;
SELECT effect, verdict, winning_rule, source_profile, reason FROM skill_system.explain_policy('scoped', array[
    'db.read:public.orders', 'db.read:hidden.orders', 'db.read', 'db.read:orders',
    'fs.write:/srv/app/a/b', 'fs.write:/srv/app/../../etc/passwd', 'fs.write:/srv/app/./x/../y', 'fs.write:/srv/application/x', 'fs.write',
    'fs.write:/srv/app/config/x', 'fs.write:/srv/app/secret/key', 'fs.write:/srv/app/config/../secret/key', 'fs.write:/srv/app/**',
    'net.fetch:api.example.com:443', 'net.fetch:api.example.com', 'net.fetch:example.com:443', 'net.fetch:api.example.com.evil.org:443',
    'git', 'git.push', 'git.push.force', 'tool.run', 'tool.run.deep', 'tool', 'Tool.run', NULL]);

-- Inheritance only adds; a deny of an ancestor wins; unlisted and mode are those of the requested profile.
SELECT skill_system.create_policy('base', deny => '{net.**}', ask => '{proc.exec}') IS NOT NULL AS made;
SELECT skill_system.create_policy('child', allow => '{net.fetch,proc.exec,db.read}', inherits => '{base,readonly}',
    unlisted => 'ask') IS NOT NULL AS made;
SELECT effect, verdict, winning_rule, source_profile FROM skill_system.explain_policy('child',
    '{net.fetch,proc.exec,db.read,db.write,fs.read,mail.send}');
SELECT * FROM skill_system.effective_policy('child');
SELECT * FROM skill_system.effective_policy('scoped');

-- Changes create versions, also of profiles that inherit; the same content creates none.
SELECT name, version FROM skill_system.policy_profiles WHERE name IN ('base', 'child') ORDER BY name;
UPDATE skill_system.policy_profiles SET ask_effects = '{proc.exec,mail.send}' WHERE name = 'base';
UPDATE skill_system.policy_profiles SET ask_effects = '{mail.send,proc.exec,mail.send}' WHERE name = 'base';
UPDATE skill_system.policy_profiles SET name = name;
SELECT name, version FROM skill_system.policy_profiles WHERE name IN ('base', 'child') ORDER BY name;
SELECT name, version, content -> 'ask_effects' AS ask, content_hash ~ '^sha256:[0-9a-f]{64}$' AS hashed, created_by = session_user AS by_me
FROM skill_system.policy_versions WHERE name IN ('base', 'child') ORDER BY name, version;
SELECT count(*) AS differing FROM skill_system.policy_profiles p
WHERE content_hash IS DISTINCT FROM (SELECT v.content_hash FROM skill_system.policy_versions v
    WHERE v.policy_profile_id = p.id AND v.version = p.version);
-- Each change is in the audit trail.
SELECT event_type, event_data ->> 'policy' AS policy, event_data ->> 'version' AS version FROM skill_system.audit_logs ORDER BY 2, 3;

-- A deleted policy leaves a last version; one that others inherit from cannot be deleted.
DELETE FROM skill_system.policy_profiles WHERE name = 'scoped';
SELECT version, name, content, content_hash FROM skill_system.policy_versions WHERE name = 'scoped' AND content IS NULL;
SELECT event_type, event_data ->> 'version' AS version FROM skill_system.audit_logs WHERE event_type = 'policy.deleted';
DELETE FROM skill_system.policy_profiles WHERE name = 'base';
UPDATE skill_system.policy_profiles SET name = 'base2' WHERE name = 'base';

-- History is append-only, for its owner too.
UPDATE skill_system.policy_versions SET name = 'x';
DELETE FROM skill_system.policy_versions;
TRUNCATE skill_system.policy_versions;

-- Invalid rows are refused.
SELECT skill_system.create_policy('dev');
SELECT skill_system.create_policy('');
SELECT skill_system.create_policy(' x');
SELECT skill_system.create_policy(E'a\nb');
SELECT skill_system.create_policy(repeat('x', 201));
SELECT skill_system.create_policy(NULL);
SELECT skill_system.create_policy('bad', allow => '{DB.read}');
SELECT skill_system.create_policy('bad', deny => '{"db read"}');
SELECT skill_system.create_policy('bad', ask => '{db..read}');
SELECT skill_system.create_policy('bad', allow => '{""}');
SELECT skill_system.create_policy('bad', allow => '{NULL}');
SELECT skill_system.create_policy('bad', allow => '{fs.write:etc/passwd}');
SELECT skill_system.create_policy('bad', allow => '{"fs.write:/srv/*/../x"}');
SELECT skill_system.create_policy('bad', allow => '{fs.write:/srv/a*}');
SELECT skill_system.create_policy('bad', allow => '{**.read}');
SELECT skill_system.create_policy('bad', allow => '{*.write:/srv}');
SELECT skill_system.create_policy('bad', allow => '{net.fetch:https://example.com}');
SELECT skill_system.create_policy('bad', allow => '{db.write:a.b.c}');
SELECT skill_system.create_policy('bad', allow => array['db.' || repeat('x', 2000)]);
SELECT skill_system.create_policy('bad', allowed_exec => '{"git  status"}');
SELECT skill_system.create_policy('bad', allowed_exec => '{"git ** status"}');
SELECT skill_system.create_policy('bad', allowed_write_roots => '{srv/app}');
SELECT skill_system.create_policy('bad', allowed_write_roots => '{/srv/*/app}');
SELECT skill_system.create_policy('bad', unlisted => 'allow');
SELECT skill_system.create_policy('bad', mode => 'off');
SELECT skill_system.create_policy('bad', inherits => '{nobody}');
SELECT skill_system.create_policy('bad', inherits => '{bad}');
UPDATE skill_system.policy_profiles SET inherits = '{child}' WHERE name = 'base';
INSERT INTO skill_system.policy_profiles (name, allowed_effects) VALUES ('bad', '{Db.read}');
SELECT count(*) FROM skill_system.policy_profiles WHERE name = 'bad';
-- Parent and child in one statement, in either order.
INSERT INTO skill_system.policy_profiles (name, inherits) VALUES ('son', '{father}'), ('father', '{}');
SELECT name, version FROM skill_system.policy_profiles WHERE name IN ('father', 'son') ORDER BY name;

-- enforce_policy raises, unless the policy only observes.
SELECT allowed, decision FROM skill_system.enforce_policy('dev', array['db.read']);
SELECT skill_system.enforce_policy('readonly', array['db.write:public.orders']);
SELECT skill_system.enforce_policy('dev', '["net.fetch"]'::jsonb);
SELECT skill_system.enforce_policy('dev', '{mail.send}');
SELECT skill_system.enforce_policy('nobody', '{db.read}');
SELECT skill_system.enforce_policy(NULL, '{db.read}');
SELECT skill_system.enforce_policy('dev', NULL::text[]);
SELECT skill_system.enforce_policy('locked', (SELECT array_agg('e' || g) FROM generate_series(1, 12) g));
UPDATE skill_system.policy_profiles SET mode = 'observe' WHERE name = 'readonly';
SELECT allowed, blocked_effects, decision FROM skill_system.enforce_policy('readonly', array['db.write:public.orders']);
SELECT event_type, event_data - 'hash' - 'denied_in' AS data FROM skill_system.audit_logs WHERE event_type = 'policy.observed';

-- Commands.
SELECT skill_system.create_policy('tools', allow => '{proc.exec,fs.write}', deny => '{proc.exec:rm}',
    allowed_exec => '{git,npm test,cargo build **,"ls * -l",/usr/bin/make,rm}',
        allowed_write_roots => '{/srv/app,/tmp/**}') IS NOT NULL AS made;
SELECT argv, d.allowed, d.decision, d.reason
FROM (VALUES (array['git', 'push', '--force']), ('{npm,test}'), ('{npm,publish}'), ('{npm}'), ('{cargo,build}'),
    ('{cargo,build,--release}'),
             ('{ls,/srv,-l}'), ('{ls,-l}'), ('{/usr/bin/make,all}'), ('{/usr/bin/../bin/make}'), ('{make}'), ('{/tmp/git,status}'),
                 ('{rm,-rf,/}'), ('{""}'), ('{}'),
             ('{git,NULL}'), (NULL::text[])) AS v(argv), skill_system.check_exec('tools', argv) AS d;
SELECT allowed, reason FROM skill_system.check_exec('nobody', '{git}');
SELECT path, d.allowed, d.decision, d.reason
FROM (VALUES ('/srv/app/x'), ('/srv/app'), ('/srv/app/../etc/x'), ('/srv/./app//y'), ('/srv/application'), ('/tmp/x'), ('/etc/passwd'),
    ('x'), ('/srv/app/*'),
             (''), (NULL)) AS v(path), skill_system.check_write('tools', path) AS d;

-- Lint.
SELECT skill_system.create_policy('messy', allow => '{db.*,db.read,fs.write,dbb.read,db.raed,git.read}', ask => '{fs.write}',
    deny => '{git.**}',
    allowed_exec => '{git}', allowed_write_roots => '{/srv}') IS NOT NULL AS made;
SELECT severity, code, rule, source_profile FROM skill_system.lint_policy('messy') ORDER BY 1, 2, 3;
SELECT DISTINCT code, message, hint FROM skill_system.lint_policy('messy') ORDER BY 1, 2;
SELECT * FROM skill_system.lint_policy('dev');

-- The functions that explain raise for a policy that does not exist.
SELECT * FROM skill_system.explain_policy('nobody', '{db.read}');
SELECT * FROM skill_system.explain_policy(NULL, '{db.read}');
SELECT * FROM skill_system.explain_policy('dev', NULL);
SELECT * FROM skill_system.explain_policy('dev', array_fill('db.read'::text, ARRAY[1001]));
SELECT * FROM skill_system.effective_policy('nobody');
SELECT * FROM skill_system.lint_policy('nobody');

-- For tests of a policy.
SELECT skill_system.assert_allows('dev', 'db.read', 'fs.read');
SELECT skill_system.assert_allows('dev', 'db.read', 'net.fetch');
SELECT skill_system.assert_denies('dev', 'net.fetch', 'mail.send');
SELECT skill_system.assert_denies('dev', 'net.fetch', 'db.read');
SELECT skill_system.assert_denies('dev', VARIADIC '{}');
SELECT skill_system.assert_allows('nobody', 'db.read');
SELECT rule, skill_system.effect_problem(rule) FROM (VALUES ('db.*'), ('DB.read'), ('fs.write:x'), (NULL)) AS v(rule);

-- Decisions write nothing and take no transaction id, also in a read-only transaction.
BEGIN READ ONLY;
SELECT allowed FROM skill_system.check_policy('dev', '{db.read}');
SELECT allowed FROM skill_system.check_exec('tools', '{git}');
SELECT allowed FROM skill_system.check_write('tools', '/tmp/x');
SELECT count(*) FROM skill_system.explain_policy('dev', '{db.read}');
SELECT allowed FROM skill_system.enforce_policy('readonly', '{db.write}');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_transaction_id;
SELECT skill_system.create_policy('bad');
ROLLBACK;

-- Trigger functions are for triggers.
SELECT skill_system.record_policy_change();

-- All records verify.
SELECT * FROM skill_system.verify_audit();
