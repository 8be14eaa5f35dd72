-- Three attempts to change the record, each a step closer to the disk.
\echo
\echo '#### 5. Somebody tries to change the record'
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
\echo 'A superuser has, and is refused all the same:'
\set ON_ERROR_STOP off
DELETE FROM skill_system.audit_logs WHERE event_type = 'filing.sent';
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' = '55000' AS refused \gset
\if :refused
\else
    DO $$ BEGIN RAISE 'the superuser was not refused'; END $$;
\endif
\echo
\echo 'Nothing was changed so far; verify_audit() has no row to show:'
CREATE TEMPORARY TABLE found AS SELECT * FROM skill_system.verify_audit();
SELECT id, problem FROM found;
DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM found), 'verify_audit() found something too early'; END $$;

\echo
\echo 'But a superuser can switch the protection off, and then really changes a record:'
BEGIN;
\echo 'ALTER TABLE skill_system.audit_logs DISABLE TRIGGER audit_logs_no_change;'
ALTER TABLE skill_system.audit_logs DISABLE TRIGGER audit_logs_no_change;
\echo 'UPDATE skill_system.audit_logs SET event_data = ... WHERE event_type = ''filing.sent'';'
UPDATE skill_system.audit_logs SET event_data = event_data || '{"well": "42-501-99999"}' WHERE event_type = 'filing.sent'
RETURNING event_type, event_data;
ALTER TABLE skill_system.audit_logs ENABLE ALWAYS TRIGGER audit_logs_no_change;
COMMIT;
\echo 'The signature covers every column, so verification finds it, now and at any later time:'
INSERT INTO found SELECT * FROM skill_system.verify_audit();
SELECT id, problem, detail FROM found;
DO $$
BEGIN
    ASSERT (SELECT array_agg(id) FROM found) = (SELECT array_agg(id) FROM skill_system.audit_logs WHERE event_type = 'filing.sent'),
           'verify_audit() did not find exactly the changed record';
END
$$;
