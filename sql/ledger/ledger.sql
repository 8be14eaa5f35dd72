-- Ledger: the Merkle tree over the audit trail (RFC 6962, tiles as in C2SP tlog-tiles), checkpoints and proofs.

CREATE TABLE skill_system.audit_seal_state (
    only_one              boolean     NOT NULL DEFAULT true PRIMARY KEY CHECK (only_one),
    incarnation           integer     NOT NULL CHECK (incarnation > 0),
    tree_size             bigint      NOT NULL CHECK (tree_size >= 0),
    root_hash             bytea       NOT NULL CHECK (pg_catalog.octet_length(root_hash) = 32),
    snapshot              pg_snapshot NOT NULL,
    target                pg_snapshot,
    position_transaction  bigint,
    position_id           uuid,
    foreign_below         bigint      NOT NULL,
    system_identifier     bigint      NOT NULL,
    database_oid          oid         NOT NULL,
    timeline              integer     NOT NULL,
    fingerprint           bytea,
    sealed_at             timestamptz NOT NULL,
    sealed_log_id         uuid        NOT NULL,
    written_by            bigint      NOT NULL,
    tail_ids              bytea       NOT NULL DEFAULT '',
    tail_hashes           bytea       NOT NULL DEFAULT '' CHECK (
        pg_catalog.octet_length(tail_hashes) <= 480 AND pg_catalog.octet_length(tail_hashes) = 2 * pg_catalog.octet_length(tail_ids)),
    CHECK ((target IS NULL) = (position_transaction IS NULL) AND (target IS NULL) = (position_id IS NULL))
)
-- One row that changes every second: statistics of it help no plan.
WITH (autovacuum_analyze_threshold = 2000000000, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE skill_system.audit_seal_state IS
'How far the audit trail is sealed, and by which server. One row, created by the first seal_audit(). Read it with SELECT tree_size, '
'sealed_at FROM skill_system.audit_seal_state;';
COMMENT ON COLUMN skill_system.audit_seal_state.only_one IS 'Always true: the table has one row.';
COMMENT ON COLUMN skill_system.audit_seal_state.incarnation IS
'Part of the origin of checkpoints; adopt_log() raises it when sealed records were lost.';
COMMENT ON COLUMN skill_system.audit_seal_state.tree_size IS 'Number of leaves: every sealed record is one.';
COMMENT ON COLUMN skill_system.audit_seal_state.root_hash IS 'Root of the Merkle tree of this size.';
COMMENT ON COLUMN skill_system.audit_seal_state.snapshot IS 'Records of all transactions that this snapshot sees are sealed.';
COMMENT ON COLUMN skill_system.audit_seal_state.target IS 'Snapshot up to which a seal in several steps is in progress; NULL if none is.';
COMMENT ON COLUMN skill_system.audit_seal_state.position_transaction IS 'Transaction of the last record sealed towards target.';
COMMENT ON COLUMN skill_system.audit_seal_state.position_id IS 'Id of the last record sealed towards target.';
COMMENT ON COLUMN skill_system.audit_seal_state.foreign_below IS
'Records with a smaller transaction_id may come from another server and be sealed already, so each is looked up first.';
COMMENT ON COLUMN skill_system.audit_seal_state.system_identifier IS
'Database system that sealed; a different one means a restore, a copy or pg_upgrade.';
COMMENT ON COLUMN skill_system.audit_seal_state.database_oid IS 'Database that sealed.';
COMMENT ON COLUMN skill_system.audit_seal_state.timeline IS
'WAL timeline of the last seal; a different one means a promotion or point-in-time recovery.';
COMMENT ON COLUMN skill_system.audit_seal_state.fingerprint IS
'SHA-256 of the catalogue state that protects the log, as last recorded by an audit.fingerprint record.';
COMMENT ON COLUMN skill_system.audit_seal_state.sealed_at IS 'When the tree last grew.';
COMMENT ON COLUMN skill_system.audit_seal_state.sealed_log_id IS 'The log that is sealed; the same as in audit_state.';
COMMENT ON COLUMN skill_system.audit_seal_state.written_by IS
'Transaction that wrote this row: another xmin means that it was restored, and nothing is sealed before adopt_log().';
COMMENT ON COLUMN skill_system.audit_seal_state.tail_ids IS
'Ids of the last leaves, fewer than 16, that are not in audit_map yet: a seal of few records writes this row only.';
COMMENT ON COLUMN skill_system.audit_seal_state.tail_hashes IS 'Hashes of the leaves of tail_ids, which are not in audit_tiles yet.';

CREATE TABLE skill_system.audit_tiles (
    level  smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    n      bigint   NOT NULL CHECK (n >= 0),
    hashes bytea    NOT NULL CHECK (pg_catalog.octet_length(hashes) >= 32 AND pg_catalog.octet_length(hashes) <= 8192
        AND pg_catalog.octet_length(hashes) % 32 = 0),
    PRIMARY KEY (level, n)
)
WITH (autovacuum_analyze_threshold = 10000, autovacuum_vacuum_threshold = 1000);
ALTER TABLE skill_system.audit_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE skill_system.audit_tiles IS
'The Merkle tree in tiles of 256 hashes (C2SP tlog-tiles, height 8). The last tile of a level may have fewer; it only ever grows. The last '
'leaves, fewer than 16, are in audit_seal_state. Read tiles with audit_tile().';
COMMENT ON COLUMN skill_system.audit_tiles.level IS
'Level of the tile: 0 holds the leaf hashes, each hash of the next level covers one full tile.';
COMMENT ON COLUMN skill_system.audit_tiles.n IS 'Number of the tile in its level, from 0.';
COMMENT ON COLUMN skill_system.audit_tiles.hashes IS 'The SHA-256 hashes, 32 bytes each.';

CREATE TABLE skill_system.audit_map (
    n    bigint    NOT NULL PRIMARY KEY CHECK (n >= 0),
    ids  bytea     NOT NULL CHECK (pg_catalog.octet_length(ids) >= 16 AND pg_catalog.octet_length(ids) <= 4096
        AND pg_catalog.octet_length(ids) % 16 = 0),
    span int8range NOT NULL
)
WITH (autovacuum_analyze_threshold = 10000, autovacuum_vacuum_threshold = 1000);
ALTER TABLE skill_system.audit_map ALTER COLUMN ids SET STORAGE EXTERNAL;
CREATE INDEX audit_map_span_idx ON skill_system.audit_map USING gist (span);
COMMENT ON TABLE skill_system.audit_map IS
'Maps leaves to records: for each tile of level 0 the ids of its records; of the last ones see audit_seal_state. Read it with '
'audit_leaf_index() and audit_leaves().';
COMMENT ON COLUMN skill_system.audit_map.n IS 'Number of the tile: its first leaf is 256 n.';
COMMENT ON COLUMN skill_system.audit_map.ids IS 'The ids of the records in the order of the leaves, 16 bytes each.';
COMMENT ON COLUMN skill_system.audit_map.span IS
'Smallest and largest of the ids, as their first 63 bits, so that a record is found without reading every tile.';

CREATE TABLE skill_system.audit_checkpoints (
    incarnation integer     NOT NULL CHECK (incarnation > 0),
    tree_size   bigint      NOT NULL CHECK (tree_size >= 0),
    root_hash   bytea       NOT NULL CHECK (pg_catalog.octet_length(root_hash) = 32),
    key_id      text        NOT NULL,
    note        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (incarnation, tree_size)
);
COMMENT ON TABLE skill_system.audit_checkpoints IS
'Every checkpoint that audit_checkpoint() has signed. They are evidence only for parties that hold a copy outside of this database.';
COMMENT ON COLUMN skill_system.audit_checkpoints.incarnation IS 'Incarnation of the log, part of the origin.';
COMMENT ON COLUMN skill_system.audit_checkpoints.tree_size IS 'Number of leaves that it covers.';
COMMENT ON COLUMN skill_system.audit_checkpoints.root_hash IS 'Root of the tree of this size.';
COMMENT ON COLUMN skill_system.audit_checkpoints.key_id IS 'Ed25519 key of the keyring that signed it.';
COMMENT ON COLUMN skill_system.audit_checkpoints.note IS 'The checkpoint itself: a signed note (C2SP tlog-checkpoint).';
COMMENT ON COLUMN skill_system.audit_checkpoints.created_at IS 'When it was signed.';

CREATE TRIGGER audit_seal_state_no_change BEFORE UPDATE OR DELETE ON skill_system.audit_seal_state
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_seal_state_no_truncate BEFORE TRUNCATE ON skill_system.audit_seal_state
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_tiles_no_change BEFORE UPDATE OR DELETE ON skill_system.audit_tiles
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_tiles_no_truncate BEFORE TRUNCATE ON skill_system.audit_tiles
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_map_no_change BEFORE UPDATE OR DELETE ON skill_system.audit_map
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_map_no_truncate BEFORE TRUNCATE ON skill_system.audit_map
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_checkpoints_no_change BEFORE UPDATE OR DELETE ON skill_system.audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER audit_checkpoints_no_truncate BEFORE TRUNCATE ON skill_system.audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();

CREATE FUNCTION skill_system.audit_leaf_index(record_id uuid) RETURNS bigint
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_leaf_index' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.audit_leaf_index(uuid) IS
'Leaf of the audit record with this id, counted from 0; NULL when the record is not sealed. Example: SELECT '
'skill_system.audit_leaf_index(''019b1f6e-5a3c-7e1f-9d2a-0123456789ab'');';

CREATE FUNCTION skill_system.audit_leaves(first_leaf bigint DEFAULT 0, max_rows bigint DEFAULT NULL)
    RETURNS TABLE (leaf_index bigint, record_id uuid, leaf_hash bytea)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_leaves';
COMMENT ON FUNCTION skill_system.audit_leaves(bigint, bigint) IS
'The leaves of the tree with the ids of their records, from first_leaf on, at most max_rows. Raises 22023 for negative numbers. Example: '
'SELECT * FROM skill_system.audit_leaves(0, 10);';

CREATE FUNCTION skill_system.seal_audit(max_rows integer DEFAULT NULL)
    RETURNS TABLE (sealed bigint, tree_size bigint, root_hash bytea, unsealed bigint, oldest_unsealed_age interval, blocked_by text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_seal_audit';
COMMENT ON FUNCTION skill_system.seal_audit(integer) IS
'Adds every committed audit record that is not sealed yet to the Merkle tree, at most max_rows when given; call it again for the rest. '
'Writers never wait for it. sealed is the number of records sealed, unsealed and oldest_unsealed_age describe the rest, blocked_by is the '
'open transaction whose records have to wait. A seal under way is waited for, 5 seconds or lock_timeout; after that, and at once with '
'max_rows, blocked_by tells which session is sealing and unsealed is NULL. With shared_preload_libraries a background worker seals every '
'skill_system.seal_interval. Raises 25006 on a standby, 55000 when the log was sealed by another server: see adopt_log(). Task 31: Seal '
'what is recorded. Example: SELECT * FROM skill_system.seal_audit();';

CREATE FUNCTION skill_system.adopt_log(reason text, last_checkpoint text DEFAULT NULL)
    RETURNS TABLE (incarnation integer, continued boolean, tree_size bigint, sealed bigint, detail text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_adopt_log';
COMMENT ON FUNCTION skill_system.adopt_log(text, text) IS
'Lets sealing continue after a restore, copy, promotion, point-in-time recovery or pg_upgrade. Rebuilds the tree from its leaves and '
'compares; pass the newest checkpoint held outside of this database, so that a loss is detected. The log continues if it contains that '
'checkpoint; otherwise it opens a new incarnation and records the loss. Records that are not sealed yet are sealed now. Writes '
'audit.log_adopted. Raises 55000 when nothing is to be adopted or the tree is damaged. Example: SELECT * FROM '
'skill_system.adopt_log(''moved to a new server'');';

CREATE FUNCTION skill_system.audit_checkpoint() RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_audit_checkpoint' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.audit_checkpoint() IS
'The sealed tree as a signed checkpoint (C2SP tlog-checkpoint, Ed25519), stored in audit_checkpoints; the same tree gives the same text. '
'Hand it to a party outside of this database: changes to what it covers can then be detected. Raises 55000 when nothing is sealed yet or '
'the seal was made by this transaction, F0000 without a signing key. Task 32: A signed checkpoint, to keep elsewhere. Example: SELECT '
'skill_system.audit_checkpoint();';

CREATE FUNCTION skill_system.audit_public_key()
    RETURNS TABLE (key_id text, active boolean, verifier_key text, jwk jsonb)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_public_key';
COMMENT ON FUNCTION skill_system.audit_public_key() IS
'The public keys of checkpoints: verifier_key is the form of the signed-note specification, for skill-verify --key; jwk is RFC 8037. '
'Fetch them once, over a trusted channel. Example: SELECT verifier_key FROM skill_system.audit_public_key() WHERE active;';

CREATE FUNCTION skill_system.audit_inclusion_proof(record_id uuid)
    RETURNS TABLE (leaf_index bigint, tree_size bigint, leaf_hash bytea, root_hash bytea, hashes bytea[], proof text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_inclusion_proof';
COMMENT ON FUNCTION skill_system.audit_inclusion_proof(uuid) IS
'Proof that the record with this id is in the tree of the newest checkpoint: the sibling hashes (RFC 6962), and the same with the '
'checkpoint as a C2SP tlog-proof text for skill-verify proof. Raises 42704 for a record that is not sealed, 55000 when no checkpoint '
'covers it yet. Example: SELECT proof FROM skill_system.audit_inclusion_proof(''019b1f6e-5a3c-7e1f-9d2a-0123456789ab'');';

CREATE FUNCTION skill_system.audit_consistency_proof(old_size bigint, new_size bigint DEFAULT NULL)
    RETURNS TABLE (old_root_hash bytea, new_root_hash bytea, hashes bytea[], proof text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_consistency_proof';
COMMENT ON FUNCTION skill_system.audit_consistency_proof(bigint, bigint) IS
'Proof that the tree of old_size is a prefix of the tree of new_size (default: everything sealed): the hashes (RFC 6962), and the same as '
'text, one base64 hash a line, for skill-verify compare. Raises 22023 for sizes out of order or beyond the tree. Example: SELECT proof '
'FROM skill_system.audit_consistency_proof(100, 200);';

CREATE FUNCTION skill_system.audit_tile(level integer, n bigint) RETURNS bytea
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_tile' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.audit_tile(integer, bigint) IS
'One tile of the tree as the bytes of C2SP tlog-tiles (path tile/<level>/<n>, with .p/<width> while it has fewer than 256 hashes), so '
'that a static file server can publish the log; NULL when the tile does not exist. Example: SELECT skill_system.audit_tile(0, 0);';

CREATE FUNCTION skill_system.audit_export(since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity') RETURNS SETOF text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_audit_export';
COMMENT ON FUNCTION skill_system.audit_export(timestamptz, timestamptz) IS
'The sealed records of a time range (created_at) as JSON Lines with what proves them: a manifest first and last, one line a leaf between. '
'skill-verify export checks it without a database. Signs a checkpoint first where writing is allowed. FETCH_COUNT keeps psql from holding '
'all of it. Example: psql -XAt -v FETCH_COUNT=100 -c "SELECT * FROM skill_system.audit_export()" > audit.jsonl';

CREATE FUNCTION skill_system.verify_audit(since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity',
    since_checkpoint bigint DEFAULT NULL)
    RETURNS TABLE (partition regclass, record_id uuid, created_at timestamptz, problem text, detail text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_verify_audit';
COMMENT ON FUNCTION skill_system.verify_audit(timestamptz, timestamptz, bigint) IS
'Checks the audit trail: every record against its signature and its leaf, leaves against tiles, tiles against the stored checkpoints, the '
'map both ways, the key indexes, and whether the protection is in place. One row per problem, no rows if none exist; the number of '
'records covered comes as an INFO message, progress as NOTICE and in audit_verify_progress. With since and until only the records of that '
'time (created_at); with since_checkpoint only what was sealed after that tree size, which also resumes an interrupted verification. '
'Compare a checkpoint held by another party with skill-verify: this function can only compare with those stored here. Task 30: Is the '
'record intact? No row means yes. Example: SELECT * FROM skill_system.verify_audit();';

CREATE FUNCTION skill_system.audit_verify_progress_entries() RETURNS TABLE (pid integer, phase text, done bigint, total bigint)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_audit_verify_progress';
COMMENT ON FUNCTION skill_system.audit_verify_progress_entries() IS
'One row for each process that runs verify_audit(), parallel workers included. The view audit_verify_progress adds them up. Example: '
'SELECT * FROM skill_system.audit_verify_progress_entries();';
CREATE VIEW skill_system.audit_verify_progress WITH (security_invoker = true) AS
    SELECT l.pid, a.datname, e.phase, pg_catalog.sum(p.done)::bigint AS done, GREATEST(e.total, pg_catalog.sum(p.done)::bigint) AS total,
        a.query_start
    FROM skill_system.audit_verify_progress_entries() p
        JOIN pg_catalog.pg_stat_activity w ON w.pid OPERATOR(pg_catalog.=) p.pid
        CROSS JOIN LATERAL (SELECT COALESCE(w.leader_pid, w.pid) AS pid) l
        JOIN skill_system.audit_verify_progress_entries() e ON e.pid OPERATOR(pg_catalog.=) l.pid
        JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
    GROUP BY l.pid, a.datname, e.phase, e.total, a.query_start;
COMMENT ON VIEW skill_system.audit_verify_progress IS
'Running calls of verify_audit() in all databases and how far they are. Example: SELECT pid, phase, done, total FROM '
'skill_system.audit_verify_progress;';
COMMENT ON COLUMN skill_system.audit_verify_progress.pid IS 'Process that called verify_audit().';
COMMENT ON COLUMN skill_system.audit_verify_progress.datname IS 'Its database.';
COMMENT ON COLUMN skill_system.audit_verify_progress.phase IS 'records, leaves, tree or indexes, in this order.';
COMMENT ON COLUMN skill_system.audit_verify_progress.done IS 'Completed steps of the phase, parallel workers included.';
COMMENT ON COLUMN skill_system.audit_verify_progress.total IS 'Total steps of the phase, estimated from statistics.';
COMMENT ON COLUMN skill_system.audit_verify_progress.query_start IS 'When the call began.';

CREATE FUNCTION skill_system.ledger_status_entries()
    RETURNS TABLE (log_id uuid, origin text, tree_size bigint, sealed_at timestamptz, unsealed bigint, oldest_unsealed_at timestamptz,
        checkpoint_size bigint, checkpoint_at timestamptz)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_ledger_status_entries' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.ledger_status_entries() IS
'The row of the view ledger_status. Example: SELECT * FROM skill_system.ledger_status_entries();';
CREATE VIEW skill_system.ledger_status WITH (security_invoker = true) AS
    SELECT log_id, origin, tree_size, sealed_at, unsealed, oldest_unsealed_at, checkpoint_size, checkpoint_at
    FROM skill_system.ledger_status_entries();
COMMENT ON VIEW skill_system.ledger_status IS
'How far the log is sealed: one row, none before the first record. For monitoring: auditors and members of pg_monitor may read it. '
'Example: SELECT tree_size, unsealed, now() - oldest_unsealed_at AS waiting_for FROM skill_system.ledger_status;';
COMMENT ON COLUMN skill_system.ledger_status.log_id IS 'Which log.';
COMMENT ON COLUMN skill_system.ledger_status.origin IS 'Its name in checkpoints: skill_system/<log id>/<incarnation>.';
COMMENT ON COLUMN skill_system.ledger_status.tree_size IS 'Sealed records: the leaves of the tree.';
COMMENT ON COLUMN skill_system.ledger_status.sealed_at IS 'When the tree last grew.';
COMMENT ON COLUMN skill_system.ledger_status.unsealed IS 'Records that no seal has taken yet; 100000 stands for more.';
COMMENT ON COLUMN skill_system.ledger_status.oldest_unsealed_at IS 'When the first of these was recorded.';
COMMENT ON COLUMN skill_system.ledger_status.checkpoint_size IS 'Leaves under the newest signed checkpoint.';
COMMENT ON COLUMN skill_system.ledger_status.checkpoint_at IS 'When it was signed.';

GRANT SELECT ON skill_system.audit_seal_state, skill_system.audit_tiles, skill_system.audit_map, skill_system.audit_checkpoints,
    skill_system.audit_verify_progress
    TO skill_system_auditor;

GRANT EXECUTE ON FUNCTION
    skill_system.verify_audit(timestamptz, timestamptz, bigint), skill_system.audit_verify_progress_entries(),
    skill_system.audit_leaf_index(uuid), skill_system.audit_leaves(bigint, bigint), skill_system.audit_checkpoint(),
    skill_system.audit_public_key(), skill_system.audit_inclusion_proof(uuid), skill_system.audit_consistency_proof(bigint, bigint),
    skill_system.audit_tile(integer, bigint), skill_system.audit_export(timestamptz, timestamptz), skill_system.seal_audit(integer)
    TO skill_system_auditor;
GRANT EXECUTE ON FUNCTION
    skill_system.seal_audit(integer), skill_system.adopt_log(text, text), skill_system.audit_checkpoint(), skill_system.audit_public_key()
    TO skill_system_admin;
-- Not to administrators, who belong to a tenant: it counts the records of all.
GRANT SELECT ON skill_system.ledger_status TO skill_system_auditor;
GRANT EXECUTE ON FUNCTION skill_system.ledger_status_entries() TO skill_system_auditor;
