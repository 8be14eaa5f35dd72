-- Sets the cell of tenant $1, entity $2 and domain $3 to the state of the newest checklist that was not withdrawn.
INSERT INTO skill_system.compliance_status AS s (tenant_id, entity_id, entity_type, entity_name, entity_field, entity_district,
    compliance_domain, status, deadline, checklist_id, details, last_assessed_at)
SELECT c.tenant_id, c.entity_id, c.entity_type, c.entity_name, c.entity_field, c.entity_district, c.compliance_domain,
    CASE WHEN c.status = 'filed' THEN 'compliant' WHEN c.status = 'exception' THEN 'not_applicable'
         WHEN c.status IN ('ready_for_review', 'in_review', 'approved') THEN 'in_review' ELSE 'action_needed' END,
    c.deadline, c.id, jsonb_build_object('checklist_status', c.status), clock_timestamp()
FROM skill_system.filing_checklists c
WHERE c.tenant_id = $1 AND c.entity_id = $2 AND c.compliance_domain = $3 AND c.status <> 'withdrawn'
ORDER BY c.created_at DESC, c.id DESC LIMIT 1
ON CONFLICT (tenant_id, entity_id, compliance_domain) DO UPDATE SET
    entity_type = EXCLUDED.entity_type,
    entity_name = coalesce(EXCLUDED.entity_name, s.entity_name),
    entity_field = coalesce(EXCLUDED.entity_field, s.entity_field),
    entity_district = coalesce(EXCLUDED.entity_district, s.entity_district),
    status = EXCLUDED.status,
    deadline = EXCLUDED.deadline,
    checklist_id = EXCLUDED.checklist_id,
    details = s.details || EXCLUDED.details,
    last_assessed_at = EXCLUDED.last_assessed_at
