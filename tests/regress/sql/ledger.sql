-- The ledger: sealing, checkpoints, proofs, exports, and their errors.
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset null '(null)'
SET client_min_messages = error; -- no warning of roles that have members
CREATE EXTENSION skill_system;
RESET client_min_messages;

-- Before the first record, and before the first seal.
SELECT sealed, tree_size, root_hash, unsealed, oldest_unsealed_age FROM skill_system.seal_audit();
SELECT skill_system.audit_checkpoint();
SELECT * FROM skill_system.audit_public_key();
SELECT * FROM skill_system.audit_consistency_proof(0);
SELECT * FROM skill_system.audit_export();
SELECT * FROM skill_system.audit_leaves();
SELECT skill_system.append_audit('first', '{}') AS first \gset
\set VERBOSITY sqlstate
SELECT * FROM skill_system.audit_inclusion_proof(:'first');
\set VERBOSITY default

-- Sealing. The first seal records the fingerprint of the protection, which the next one seals.
SELECT sealed, tree_size, unsealed, oldest_unsealed_age FROM skill_system.seal_audit();
SELECT sealed, tree_size FROM skill_system.seal_audit();
SELECT sealed, tree_size FROM skill_system.seal_audit();
SELECT count(skill_system.append_audit('form.sent', jsonb_build_object('n', n))) FROM generate_series(1, 600) n;
SELECT sealed, tree_size, unsealed, oldest_unsealed_age > '0' AS waiting FROM skill_system.seal_audit(100);
SELECT sealed, tree_size, unsealed FROM skill_system.seal_audit(100);
SELECT sealed, tree_size, unsealed FROM skill_system.seal_audit();
SELECT * FROM skill_system.seal_audit(0);
-- Each record once, in the order of its writing.
SELECT count(*), count(DISTINCT l.record_id), bool_and(skill_system.audit_leaf_index(l.record_id) = l.leaf_index) AS found
    FROM skill_system.audit_leaves() l JOIN skill_system.audit_logs a ON a.id = l.record_id;
SELECT l.leaf_index, a.event_type, a.event_data FROM skill_system.audit_leaves(2, 2) l
    JOIN skill_system.audit_logs a ON a.id = l.record_id ORDER BY 1;
SELECT * FROM skill_system.audit_leaves(-1);
SELECT skill_system.audit_leaf_index(NULL), skill_system.audit_leaf_index('00000000-0000-7000-8000-000000000000');
-- Rolled back records are never sealed; those of this transaction are not sealed before its end.
BEGIN;
SELECT skill_system.append_audit('mine', '{}') IS NOT NULL AS written;
SELECT sealed, unsealed FROM skill_system.seal_audit();
ROLLBACK;
SELECT sealed FROM skill_system.seal_audit();

-- Checkpoints: the same text for the same tree, and never over records that may be rolled back.
SELECT split_part(note, E'\n', 2) AS tree_size, note = skill_system.audit_checkpoint() AS same FROM skill_system.audit_checkpoint() note;
SELECT skill_system.append_audit('next', '{}') IS NOT NULL AS written;
BEGIN;
SELECT sealed FROM skill_system.seal_audit();
SELECT skill_system.audit_checkpoint();
ROLLBACK;
SELECT incarnation, tree_size, key_id ~ '^ed-[0-9a-f]{16}$' AS key FROM skill_system.audit_checkpoints;
SELECT active, verifier_key ~ '^skill_system/[0-9a-f-]{36}/1\+[0-9a-f]{8}\+' AS vkey, jwk ->> 'crv' AS curve, jwk ? 'd' AS secret
    FROM skill_system.audit_public_key();

-- Proofs.
SELECT leaf_index, tree_size, octet_length(leaf_hash), octet_length(root_hash), cardinality(hashes), split_part(proof, E'\n',
    1) AS format, split_part(proof, E'\n', 2) AS index
FROM skill_system.audit_inclusion_proof(:'first');
SELECT * FROM skill_system.audit_inclusion_proof(NULL);
SELECT * FROM skill_system.audit_inclusion_proof('00000000-0000-7000-8000-000000000000');
SELECT cardinality(hashes), old_root_hash <> new_root_hash AS grown FROM skill_system.audit_consistency_proof(500);
SELECT cardinality(hashes), old_root_hash = new_root_hash AS same FROM skill_system.audit_consistency_proof(602, 602);
SELECT * FROM skill_system.audit_consistency_proof(603);
SELECT * FROM skill_system.audit_consistency_proof(3, 2);
SELECT octet_length(skill_system.audit_tile(0, 0)) AS full, octet_length(skill_system.audit_tile(0, 2)) AS partial,
    octet_length(skill_system.audit_tile(1, 0)) AS above, skill_system.audit_tile(0, 3) AS none;
SELECT skill_system.audit_tile(NULL, 0);

-- Exports.
SELECT count(*), count(*) FILTER (WHERE line::jsonb ? 'signature') AS records FROM skill_system.audit_export() line;
SELECT line::jsonb - '{left,right,root,checkpoint,origin,log_id}'::text[] AS manifest FROM skill_system.audit_export() line LIMIT 1;
SELECT line::jsonb ->> 'start' AS start, line::jsonb ->> 'end' AS "end", line::jsonb ->> 'until' AS until
    FROM skill_system.audit_export(until => '2001-01-01 00:00:00+00') line;
SELECT * FROM skill_system.audit_export(NULL);

-- The ledger's tables are append-only, too.
UPDATE skill_system.audit_tiles SET hashes = hashes;
DELETE FROM skill_system.audit_map;
TRUNCATE skill_system.audit_checkpoints;
DELETE FROM skill_system.audit_seal_state;

-- Nothing to adopt here.
SELECT * FROM skill_system.adopt_log('why');
SELECT * FROM skill_system.adopt_log(' ');
SELECT * FROM skill_system.adopt_log('why', 'no checkpoint');

SELECT sealed FROM skill_system.seal_audit();
SELECT * FROM skill_system.verify_audit();
SELECT * FROM skill_system.verify_audit(since_checkpoint => 600);
SELECT * FROM skill_system.verify_audit(since_checkpoint => 10000);
SELECT * FROM skill_system.verify_audit(since => '2001-01-01', since_checkpoint => 1);
SELECT pid = pg_backend_pid() AS mine FROM skill_system.audit_verify_progress;
