-- A well of the types $1 belongs to a lease.
INSERT INTO skill_system.entity_relationship_rules (parent_type_id, child_type_id, cardinality, required, display_label)
SELECT p.type_id, c.type_id, 'one_to_many', true, 'wells of the lease'
FROM skill_system.entity_type_definitions p JOIN skill_system.entity_type_definitions c ON c.tenant_id = p.tenant_id
WHERE p.tenant_id = skill_system.current_tenant() AND p.type_key = 'lease' AND c.type_key = 'well' AND c.type_key = ANY ($1)
ON CONFLICT DO NOTHING
RETURNING display_label::text
