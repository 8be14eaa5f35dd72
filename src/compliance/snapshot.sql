-- What a filing's signed document tells: $1 is the filing, $2 the log's origin. The records are looked for from the filing's
-- first day on; of an artifact it has the digest, not the content. The text is that of the jsonb, so that every number keeps
-- its digits.
SELECT p, p::text FROM (
    SELECT jsonb_build_object(
        'log', $2, 'tenant_id', c.tenant_id, 'made_at', clock_timestamp(), 'made_by', session_user,
        'entity', jsonb_build_object('entity_id', c.entity_id, 'entity_type', c.entity_type, 'entity_name', c.entity_name,
            'entity_field', c.entity_field, 'entity_district', c.entity_district),
        'checklist', to_jsonb(c),
        'template', (SELECT jsonb_build_object('id', t.id, 'version', t.version,
            'min_required_items', t.min_required_items, 'rule_domains', t.rule_domains)
            FROM skill_system.checklist_templates t WHERE t.tenant_id = c.tenant_id AND t.id = c.template_id),
        'approvals', coalesce(c.metadata->'reviews', '[]'),
        'artifacts', (SELECT coalesce(jsonb_agg(to_jsonb(a) - 'content' ORDER BY a.id), '[]') FROM skill_system.checklist_artifacts a
            WHERE a.tenant_id = c.tenant_id AND a.checklist_id = c.id),
        'rules', (SELECT coalesce(jsonb_agg(to_jsonb(s) || jsonb_build_object('rule_identifier', v.rule_identifier, 'version', v.version,
                'effective_date', v.effective_date, 'source', v.source, 'source_reference', v.source_reference) ORDER BY s.id), '[]')
            FROM skill_system.filing_rule_snapshots s
            JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id
            WHERE s.tenant_id = c.tenant_id AND s.checklist_id = c.id),
        'audit', (SELECT coalesce(jsonb_agg(jsonb_build_object('record', to_jsonb(l), 'proof',
                CASE WHEN skill_system.audit_leaf_index(l.id) < covered.size
                     THEN (SELECT p.proof FROM skill_system.audit_inclusion_proof(l.id) p) END) ORDER BY l.recorded_at, l.id), '[]')
            FROM skill_system.audit_logs l CROSS JOIN (SELECT max(k.tree_size) AS size FROM skill_system.audit_checkpoints k
                WHERE k.incarnation = (SELECT z.incarnation FROM skill_system.audit_seal_state z)) covered
            -- Only this module writes records of these types.
            WHERE l.tenant_id = c.tenant_id AND l.created_at >= c.created_at AND l.event_type LIKE 'filing.%'
                AND l.event_data->>'checklist_id' = $1::text))
        FROM skill_system.filing_checklists c WHERE c.tenant_id = skill_system.current_tenant() AND c.id = $1
) AS payload(p)
