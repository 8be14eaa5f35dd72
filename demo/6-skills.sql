-- A skill from its file to its first run.
\connect - demo_agent
\echo
\echo '#### 8. A skill: registered, refused, fixed, approved with a signature, loaded, run'
\echo
\echo 'An agent registers demo/well-report/SKILL.md:'
\set source `cat demo/well-report/SKILL.md`
SELECT skill_name, version, semver, status FROM skill_system.register_skill(:'source');
\echo 'It is not approved, so it may not run:'
SELECT decision, reason FROM skill_system.check_skill('filing', 'well-report', 'write');
\echo 'The policy denies it as well: its manifest declares a program.'
SELECT d.decision, d.blocked_effects FROM skill_system.skills s, skill_system.check_policy('filing', s.effects) d
    WHERE s.skill_name = 'well-report';
\echo 'The author writes the report without that program. New content is a new version:'
\set source `sed 's/ with the program .wkhtmltopdf.//; s/, "proc.exec:wkhtmltopdf"//; s/1\.0\.0/1.1.0/' demo/well-report/SKILL.md`
SELECT skill_name, version, semver, status FROM skill_system.register_skill(:'source');
SELECT version AS newest FROM skill_system.skill_versions ORDER BY revision DESC LIMIT 1 \gset

\connect - postgres
\echo 'From now on an approval needs a signature. The approver has a private key that this server never gets:'
\! openssl genpkey -algorithm ed25519 -out .build/demo-approver.pem
\set public_key `openssl pkey -in .build/demo-approver.pem -pubout`
ALTER DATABASE demo SET skill_system.signed_approvals = on;
SELECT skill_system.add_skill_approver(:'public_key', 'j.doe') AS key_id;
\connect - postgres
\set ON_ERROR_STOP off
SELECT * FROM skill_system.set_skill_status('well-report', 'approved', :'newest');
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' = 'SK403' AS refused \gset
\if :refused
\else
    DO $$ BEGIN RAISE 'an approval without signature was not refused with SK403'; END $$;
\endif
SELECT skill_system.skill_approval_text('well-report') AS text \gset
\echo 'What is signed:' :text
\setenv DEMO_TEXT :text
\! printf %s "$DEMO_TEXT" > .build/demo.text
\! openssl pkeyutl -sign -rawin -inkey .build/demo-approver.pem -in .build/demo.text -out .build/demo.signature
\set signature `base64 -w0 .build/demo.signature | tr '+/' '-_' | tr -d '='`
SELECT version, status, current_version
    FROM skill_system.set_skill_status('well-report', 'approved', :'newest', 'v1:' || :'signature');

\connect - demo_agent
SELECT decision, reason FROM skill_system.check_skill('filing', 'well-report', 'write');
\echo 'An agent built on skills-runtime-sdk finds and loads it, its code unchanged:'
\setenv DEMO_DSN `echo "host=$PGHOST port=$PGPORT user=demo_agent dbname=demo"`
\! .build/demo-venv/bin/python demo/load_skill.py 'Please use $[default].well-report for well 42-501-20130.' > .build/demo-loaded.txt
\! head -8 .build/demo-loaded.txt; echo ...
\echo 'The run names the exact version, with the hash of its content:'
SELECT skill_system.log_run('well-report', 'write', 'ok', 840, agent_id => 'pr-agent', policy_name => 'filing') AS run \gset
SELECT r.id AS run, r.status, v.version, v.semver, v.status AS approved, left(v.content_hash, 16) || '...' AS content_hash
FROM skill_system.runs r JOIN skill_system.skill_versions v ON v.tenant_id = r.tenant_id AND v.id = r.skill_version_id WHERE r.id = :run;
SELECT v.version = :'newest' AS as_expected FROM skill_system.runs r
    JOIN skill_system.skill_versions v ON v.tenant_id = r.tenant_id AND v.id = r.skill_version_id WHERE r.id = :run \gset
\if :as_expected
\else
    DO $$ BEGIN RAISE 'the run does not name the version that was approved'; END $$;
\endif
\echo 'Who did what with it:'
\connect - postgres
SELECT to_char(recorded_at, 'HH24:MI:SS') AS at, event_type, session_user_name AS login, event_data ->> 'version' AS version,
    event_data ->> 'from' AS "from", event_data ->> 'to' AS "to"
FROM skill_system.audit_logs WHERE event_data ->> 'skill_name' = 'well-report' ORDER BY recorded_at, id;
