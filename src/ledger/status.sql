SELECT t.log_id, format('skill_system/%s/%s', t.log_id, coalesce(s.incarnation, 1)), coalesce(s.tree_size, 0), s.sealed_at,
    s.snapshot::text, c.tree_size, c.created_at
FROM skill_system.audit_state t
LEFT JOIN skill_system.audit_seal_state s ON true
LEFT JOIN LATERAL (
    SELECT k.tree_size, k.created_at FROM skill_system.audit_checkpoints k
    WHERE k.incarnation = s.incarnation ORDER BY k.tree_size DESC LIMIT 1
) c ON true
