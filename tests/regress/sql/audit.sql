-- Audit: the append-only, signed record.
-- Ids, times, transactions, keys and signatures vary, so they are compared, never printed.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = error; -- no warning of roles that have members
CREATE EXTENSION skill_system;
RESET client_min_messages;
\pset null '(null)'

-- Nothing was recorded yet, and the log has no identity.
SELECT count(*) FROM skill_system.audit_state;
SELECT * FROM skill_system.verify_audit();

-- The two ways to write.
SELECT skill_system.append_audit('form.sent', '{"form": "W-1"}', 'rule37-agent', 'agent') IS NOT NULL AS written;
SELECT skill_system.append_audit('note', '[1, "two", null, {"three": 3.00}]') IS NOT NULL AS written;
INSERT INTO skill_system.audit_logs (event_type, event_data, actor_id, actor_type)
    VALUES ('plain.insert', '{}', NULL, NULL), ('plain.insert', '"scalar"', 'x', 'user');
INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('plain.default', 'null');
SELECT event_type, event_data, actor_id, actor_type, tenant_id FROM skill_system.audit_logs ORDER BY event_type, actor_id;
-- Columns that the server sets, whatever the caller passes.
SELECT count(*) AS records,
       bool_and(id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]') AS uuid_v7,
       bool_and(signature = 'v1:' || key_id || ':' || right(signature, 64) AND right(signature, 64) ~ '^[0-9a-f]{64}$') AS signed,
       bool_and(session_user_name = session_user AND current_user_name = current_user) AS users,
       bool_and(recorded_at BETWEEN now() - interval '1 minute' AND clock_timestamp()) AS times,
       count(DISTINCT transaction_id) AS transactions, count(DISTINCT id) AS ids, count(DISTINCT signature) AS signatures
FROM skill_system.audit_logs;
BEGIN;
SELECT skill_system.append_audit('in.transaction', '{}') IS NOT NULL AS written;
SELECT transaction_id = pg_current_xact_id()::text::bigint AS mine, created_at = now() AS at_start, recorded_at > now() AS recorded_later
FROM skill_system.audit_logs WHERE event_type = 'in.transaction';
COMMIT;
-- A rolled back record leaves no trace.
BEGIN;
SELECT skill_system.append_audit('gone', '{}') IS NOT NULL AS written;
ROLLBACK;
-- Values that an owner inserts are replaced, except a signature, which verification then checks.
INSERT INTO skill_system.audit_logs (id, event_type, event_data, recorded_at, transaction_id, session_user_name, current_user_name, key_id)
VALUES ('00000000-0000-0000-0000-000000000000', 'claimed', '{}', '2000-01-01', 1, 'alice', 'bob', 'k');
SELECT id <> '00000000-0000-0000-0000-000000000000' AS id, recorded_at > '2020-01-01' AS time, transaction_id > 1 AS transaction,
       session_user_name = session_user AS session, current_user_name = current_user AS current, key_id <> 'k' AS key
FROM skill_system.audit_logs WHERE event_type = 'claimed';
SELECT * FROM skill_system.verify_audit();
SELECT records, key_present, key_active FROM skill_system.audit_status();
SELECT count(*) FROM skill_system.audit_state;

-- Bounds of what a record may hold.
SELECT skill_system.append_audit(NULL, '{}');
SELECT skill_system.append_audit('x', NULL);
SELECT skill_system.append_audit('', '{}');
SELECT skill_system.append_audit(repeat('x', 101), '{}');
SELECT skill_system.append_audit(repeat('x', 100), '{}', repeat('ü', 100), repeat('ü', 20)) IS NOT NULL AS fits;
SELECT skill_system.append_audit('x', '{}', repeat('x', 101));
SELECT skill_system.append_audit('x', '{}', 'a', repeat('x', 21));
SELECT skill_system.append_audit('x', '{}', '', 'user');
SELECT skill_system.append_audit('deep', (repeat('[', 64) || repeat(']', 64))::jsonb) IS NOT NULL AS fits;
SELECT skill_system.append_audit('deep', (repeat('[', 65) || repeat(']', 65))::jsonb);
INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('', '{}');
INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', NULL);
INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) VALUES ('x', '{}', 'infinity');
INSERT INTO skill_system.audit_logs (event_type) VALUES ('x');
BEGIN READ ONLY;
SELECT skill_system.append_audit('x', '{}');
ROLLBACK;

-- Append-only, for the owner, for a superuser, and under session_replication_role = replica. The messages name this month.
\set VERBOSITY sqlstate
UPDATE skill_system.audit_logs SET event_type = 'x';
DELETE FROM skill_system.audit_logs;
\set VERBOSITY default
TRUNCATE skill_system.audit_logs;
TRUNCATE skill_system.audit_logs_default;
DELETE FROM skill_system.audit_state;
UPDATE skill_system.audit_state SET log_id = gen_random_uuid();
TRUNCATE skill_system.audit_state;
SET session_replication_role = replica;
\set VERBOSITY sqlstate
DELETE FROM skill_system.audit_logs;
\set VERBOSITY default
TRUNCATE skill_system.audit_logs_default;
INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('replica', '{}');
RESET session_replication_role;
\set VERBOSITY sqlstate
MERGE INTO skill_system.audit_logs a USING (VALUES (1)) v(x) ON true WHEN MATCHED THEN DELETE;
\set VERBOSITY default
-- A statement that changes no row is not refused.
DELETE FROM skill_system.audit_logs WHERE false;

-- Verification reports what is wrong.
SELECT * FROM skill_system.verify_audit();
BEGIN;
DO $$ BEGIN
    EXECUTE format('ALTER TABLE skill_system.%s DISABLE TRIGGER USER', to_char(now() AT TIME ZONE 'UTC', '"audit_logs_"YYYY_MM'));
END $$;
UPDATE skill_system.audit_logs SET event_data = '{"form": "W-2"}' WHERE event_type = 'form.sent';
UPDATE skill_system.audit_logs SET key_id = 'other' WHERE event_type = 'note';
UPDATE skill_system.audit_logs SET key_id = 'gone', signature = 'v1:gone:' || right(signature, 64)
    WHERE event_type = 'plain.default';
UPDATE skill_system.audit_logs SET signature = upper(signature) WHERE event_type = 'claimed';
SELECT a.event_type, v.problem, v.detail FROM skill_system.verify_audit() v
    LEFT JOIN skill_system.audit_logs a ON a.id = v.record_id
    ORDER BY 1, 2, 3;
ROLLBACK;
-- Only the given range.
SELECT count(*) FROM skill_system.verify_audit(until => '2000-01-01');
SELECT count(*) FROM skill_system.verify_audit('2000-01-01', 'infinity');
SELECT * FROM skill_system.verify_audit(NULL);
-- A signature that an owner inserts (as a restore does) is verified.
BEGIN;
INSERT INTO skill_system.audit_logs (id, event_type, event_data, recorded_at, transaction_id, session_user_name, current_user_name,
    key_id, signature)
SELECT gen_random_uuid(), 'forged', '{}', now(), 1, 'alice', 'alice', key_id, signature FROM skill_system.audit_logs
    WHERE event_type = 'note';
SELECT problem FROM skill_system.verify_audit();
ROLLBACK;
SELECT * FROM skill_system.verify_audit();

-- Partitions, one a month of UTC.
SELECT skill_system.create_audit_partition('2031-05-17');
SELECT skill_system.create_audit_partition('2031-05-01');
SELECT skill_system.create_audit_partition('2031-12-31');
INSERT INTO skill_system.audit_logs (event_type, event_data, created_at)
VALUES ('may.first', '{}', '2031-05-01 00:00:00+00'), ('may.last', '{}', '2031-05-31 23:59:59.999999+00'), ('june', '{}',
    '2031-06-01 00:00:00+00');
SELECT tableoid::regclass, event_type FROM skill_system.audit_logs WHERE created_at > '2031-01-01' ORDER BY created_at;
SELECT skill_system.create_audit_partition('2031-06-15');
UPDATE skill_system.audit_logs_2031_05 SET event_type = 'x';
DELETE FROM skill_system.audit_logs_2031_05;
TRUNCATE skill_system.audit_logs_2031_05;
SELECT conname FROM pg_constraint WHERE conrelid = 'skill_system.audit_logs_2031_05'::regclass AND contype = 'p';
SELECT relrowsecurity FROM pg_class WHERE oid = 'skill_system.audit_logs_2031_05'::regclass;
SELECT * FROM skill_system.verify_audit();
-- A partition created by hand has no protection against TRUNCATE; verification reports it.
CREATE TABLE skill_system.by_hand PARTITION OF skill_system.audit_logs FOR VALUES
    FROM ('2032-01-01 00:00:00+00') TO ('2032-02-01 00:00:00+00');
SELECT partition, problem, detail FROM skill_system.verify_audit() ORDER BY 1, 3;
DROP TABLE skill_system.by_hand;
CREATE UNLOGGED TABLE skill_system.by_hand PARTITION OF skill_system.audit_logs FOR VALUES
    FROM ('2032-01-01 00:00:00+00') TO ('2032-02-01 00:00:00+00');
SELECT partition, problem, detail FROM skill_system.verify_audit() ORDER BY 1, 3;
DROP TABLE skill_system.by_hand;

-- An application's table: append-only.
CREATE SCHEMA "my ""schema";
CREATE TABLE "my ""schema"."in'voices" (id int PRIMARY KEY, amount numeric);
SELECT skill_system.make_append_only('"my ""schema"."in''voices"');
SELECT skill_system.make_append_only('"my ""schema"."in''voices"');
INSERT INTO "my ""schema"."in'voices" VALUES (1, 10.00);
UPDATE "my ""schema"."in'voices" SET amount = 1;
DELETE FROM "my ""schema"."in'voices";
TRUNCATE "my ""schema"."in'voices";
CREATE TABLE parted (id int, day date) PARTITION BY RANGE (day);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
SELECT skill_system.make_append_only('parted');
INSERT INTO parted VALUES (1, '2030-02-02');
UPDATE parted SET id = 2;
DELETE FROM parted_a;
TRUNCATE parted;
TRUNCATE parted_a;
CREATE VIEW a_view AS SELECT 1 AS x;
SELECT skill_system.make_append_only('a_view');
SELECT skill_system.make_append_only(NULL);
SELECT skill_system.make_append_only('no_such_table');

-- An application's table: its changes in the audit trail.
CREATE TABLE wells (api text, leg int, depth numeric(8, 2), note text, updated_at timestamptz DEFAULT '2030-01-01Z', PRIMARY KEY (leg,
    api));
SELECT skill_system.audit_table('wells', ignored_columns => '{updated_at}');
INSERT INTO wells VALUES ('42-1', 1, 1000, NULL), ('42-2', 1, 2000.50, 'dry');
UPDATE wells SET updated_at = '2030-02-02Z';
UPDATE wells SET depth = depth;
UPDATE wells SET depth = 1001 WHERE api = '42-1';
UPDATE wells SET api = '42-9' WHERE api = '42-1';
DELETE FROM wells WHERE api = '42-2';
TRUNCATE wells;
SELECT event_type, event_data FROM skill_system.audit_logs WHERE event_data ->> 'table' = 'public.wells' ORDER BY recorded_at, event_type;
-- Selected columns; another call replaces the selection.
SELECT skill_system.audit_table('wells', columns => '{note}');
INSERT INTO wells VALUES ('42-3', 1, 3000, 'oil');
UPDATE wells SET depth = 4000;
UPDATE wells SET note = 'gas';
DELETE FROM wells;
SELECT event_type, event_data -> 'old' AS old, event_data -> 'new' AS new FROM skill_system.audit_logs
WHERE event_type LIKE 'row.%' AND event_data #>> '{key,api}' = '42-3' ORDER BY recorded_at, event_type;
-- A rolled back change leaves no record, and the role of the writer is in the record.
BEGIN;
INSERT INTO wells VALUES ('42-4', 1, 1, 'x');
ROLLBACK;
SELECT count(*) FROM skill_system.audit_logs WHERE event_data #>> '{key,api}' = '42-4';
SELECT skill_system.audit_table('wells', columns => '{no_such}');
SELECT skill_system.audit_table('wells', ignored_columns => '{no_such}');
SELECT skill_system.audit_table('wells', columns => '{note}', ignored_columns => '{note}');
SELECT skill_system.audit_table('wells', columns => '{}');
SELECT skill_system.audit_table('a_view');
SELECT skill_system.audit_table(NULL);
SELECT skill_system.audit_table('skill_system.audit_logs');
SELECT skill_system.audit_table('skill_system.audit_logs_default');

-- Misuse.
SELECT skill_system.sign_audit_row();
SELECT skill_system.refuse_change();
SELECT skill_system.capture_change();
SELECT skill_system.create_keyring();

SELECT * FROM skill_system.verify_audit();
