-- Begins a filing; no row when one with the key $12 of the role $14 and the actor $9 exists.
INSERT INTO skill_system.filing_checklists (entity_id, entity_type, entity_name, compliance_domain, template_id, deadline, items, metadata,
    created_by, entity_field, entity_district, idempotency_key, request_digest, created_by_role)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (tenant_id, idempotency_key, created_by_role, created_by) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
