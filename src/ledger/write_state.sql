INSERT INTO skill_system.audit_seal_state (
    incarnation, tree_size, root_hash, snapshot, target, position_transaction, position_id, foreign_below,
    system_identifier, database_oid, timeline, fingerprint, sealed_at, written_by, tail_ids, tail_hashes, sealed_log_id)
VALUES ($1, $2, $3, $4::pg_snapshot, $5::pg_snapshot, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
    (SELECT log_id FROM skill_system.audit_state))
ON CONFLICT (only_one) DO UPDATE SET
    incarnation = EXCLUDED.incarnation,
    tree_size = EXCLUDED.tree_size,
    root_hash = EXCLUDED.root_hash,
    snapshot = EXCLUDED.snapshot,
    target = EXCLUDED.target,
    position_transaction = EXCLUDED.position_transaction,
    position_id = EXCLUDED.position_id,
    foreign_below = EXCLUDED.foreign_below,
    system_identifier = EXCLUDED.system_identifier,
    database_oid = EXCLUDED.database_oid,
    timeline = EXCLUDED.timeline,
    fingerprint = EXCLUDED.fingerprint,
    sealed_at = EXCLUDED.sealed_at,
    written_by = EXCLUDED.written_by,
    tail_ids = EXCLUDED.tail_ids,
    tail_hashes = EXCLUDED.tail_hashes,
    sealed_log_id = EXCLUDED.sealed_log_id
