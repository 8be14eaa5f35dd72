-- Where the Commission's fields go in entities of the types $1.
INSERT INTO skill_system.rrc_field_mappings (type_id, rrc_field_key, entity_field_id)
SELECT f.type_id, m.rrc_field_key, f.field_id
FROM skill_system.entity_type_definitions t
JOIN skill_system.entity_field_definitions f ON f.tenant_id = t.tenant_id AND f.type_id = t.type_id
JOIN (VALUES ('API_NO', 'api_number'), ('DISTRICT_NAME', 'district'), ('TOTAL_DEPTH', 'total_depth'), ('SPUD_DATE', 'spud_date'),
    ('LEASE_NO', 'lease_number'), ('OPERATOR_NO', 'operator_number')) AS m(rrc_field_key, field_key) ON m.field_key = f.field_key
WHERE t.tenant_id = skill_system.current_tenant() AND t.type_key = ANY ($1)
ORDER BY 2
RETURNING rrc_field_key::text
