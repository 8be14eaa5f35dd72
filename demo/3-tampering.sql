-- Three attempts to change the audit record, each closer to the disk.
\echo
\echo '#### 5. An attacker tries to change the record'
\echo
\echo 'The agent has no right to:'
\set ON_ERROR_STOP off
UPDATE skill_system.audit_logs SET event_data = '{}';
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' = '42501' AS refused \gset
\if :refused
\else
    DO $$ BEGIN RAISE 'the agent was not refused with 42501'; END $$;
\endif

\connect - postgres
\echo
\echo 'A superuser has the right, and is refused as well:'
\set ON_ERROR_STOP off
DELETE FROM skill_system.audit_logs WHERE event_type = 'form.sent';
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' = '55000' AS refused \gset
\if :refused
\else
    DO $$ BEGIN RAISE 'the superuser was not refused'; END $$;
\endif
\echo
\echo 'Nothing was changed so far, so verify_audit() returns no row:'
CREATE TEMPORARY TABLE found AS SELECT * FROM skill_system.verify_audit();
SELECT record_id, problem FROM found;
DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM found), 'verify_audit() found something too early'; END $$;


\echo
\echo 'The background worker seals the records once a second. An auditor fetches the public key and a signed checkpoint:'
SELECT tree_size AS sealed_so_far FROM skill_system.seal_audit();
SELECT verifier_key FROM skill_system.audit_public_key() WHERE active \g (format=unaligned tuples_only) .build/demo.key
SELECT skill_system.audit_checkpoint() \g (format=unaligned tuples_only) .build/demo.checkpoint
\! cat .build/demo.checkpoint

\echo 'A superuser tries to switch the protection off, and is refused:'
\set ON_ERROR_STOP off
ALTER TABLE skill_system.audit_logs DISABLE TRIGGER audit_logs_no_change;
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' = '42501' AS refused \gset
\if :refused
\else
    DO $$ BEGIN RAISE 'the guard did not refuse'; END $$;
\endif
\echo
\echo 'With skill_system.allow_unprotected it works. One record is changed and another removed:'
SET skill_system.allow_unprotected = on;
BEGIN;
ALTER TABLE skill_system.audit_logs DISABLE TRIGGER audit_logs_no_change;
\echo 'UPDATE skill_system.audit_logs SET event_data = ... WHERE event_type = ''form.sent'';'
UPDATE skill_system.audit_logs SET event_data = event_data || '{"well": "42-501-99999"}' WHERE event_type = 'form.sent'
RETURNING event_type, event_data;
\echo 'DELETE FROM skill_system.audit_logs WHERE event_type = ''policy.denied'';'
DELETE FROM skill_system.audit_logs WHERE event_type = 'policy.denied' RETURNING event_type, id;
ALTER TABLE skill_system.audit_logs ENABLE ALWAYS TRIGGER audit_logs_no_change;
COMMIT;
RESET skill_system.allow_unprotected;
\echo 'Verification finds both, at any later time:'
INSERT INTO found SELECT * FROM skill_system.verify_audit();
SELECT record_id, problem, detail FROM found;
DO $$
BEGIN
    ASSERT (SELECT array_agg(DISTINCT problem ORDER BY problem) FROM found) = '{leaf_mismatch,record_missing,signature_mismatch}',
           'verify_audit() did not find exactly what was done';
END
$$;
\echo 'The auditor finds them without the database, with the public key and an export:'
SELECT * FROM skill_system.audit_export() \g (format=unaligned tuples_only) .build/demo.jsonl
\! rm -f .build/demo.found; "$SKILL_VERIFY" export .build/demo.jsonl --key .build/demo.key; [ $? = 1 ] && touch .build/demo.found
