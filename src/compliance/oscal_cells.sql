-- Cells of the status matrix with their evidence and rules: $1 is an entity, $2 a domain, NULL for all; at most $3 and one more.
SELECT s.entity_id::text, s.entity_type::text, s.entity_name::text, s.compliance_domain::text, s.status,
    CASE WHEN isfinite(s.deadline) THEN to_char(s.deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END,
    to_char(s.last_assessed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), s.checklist_id::text,
    jsonb_build_object(
        'evidence', (SELECT jsonb_agg(jsonb_build_object('id', a.id, 'name', a.name, 'media_type', a.content_type,
                'path', a.file_path, 'digest', a.content_sha256) ORDER BY a.id)
            FROM (SELECT * FROM skill_system.checklist_artifacts a
                WHERE a.tenant_id = s.tenant_id AND a.checklist_id = s.checklist_id AND a.withdrawn_at IS NULL ORDER BY a.id LIMIT 1000) a),
        'rules', (SELECT jsonb_agg(v.rule_identifier || ' version ' || v.version ORDER BY v.rule_identifier)
            FROM skill_system.filing_rule_snapshots f
            JOIN skill_system.rule_versions v ON v.tenant_id = f.tenant_id AND v.id = f.rule_version_id
            WHERE f.tenant_id = s.tenant_id AND f.checklist_id = s.checklist_id AND f.replaced_by IS NULL))::text
FROM skill_system.compliance_cells s
WHERE s.tenant_id = skill_system.current_tenant()
    AND ($1 IS NULL OR s.entity_id = $1) AND ($2 IS NULL OR s.compliance_domain = $2)
ORDER BY s.entity_id, s.compliance_domain LIMIT $3::bigint + 1
