-- The fields of the types $1.
INSERT INTO skill_system.entity_field_definitions (type_id, field_key, label, input_type, required, validation_preset, options, sort_order)
SELECT t.type_id, f.field_key, f.label, f.input_type, f.required, f.preset, f.options::jsonb, f.place
FROM skill_system.entity_type_definitions t JOIN (VALUES
    ('well', 1, 'api_number', 'API number', 'text', true, 'api_well_number', NULL),
    ('well', 2, 'district', 'RRC district', 'text', true, 'rrc_district', NULL),
    ('well', 3, 'total_depth', 'Total depth (ft)', 'number', false, NULL, NULL),
    ('well', 4, 'spud_date', 'Spud date', 'date', false, NULL, NULL),
    ('well', 5, 'well_type', 'Type of well', 'select', true, NULL, '["oil", "gas", "injection"]'),
    ('lease', 1, 'lease_number', 'Lease number', 'text', true, 'rrc_lease_number', NULL),
    ('lease', 2, 'operator_number', 'Operator number', 'text', true, 'rrc_operator_number', NULL),
    ('facility', 1, 'facility_id', 'Facility', 'text', true, NULL, NULL),
    ('facility', 2, 'contact', 'Contact', 'text', false, 'email', NULL)
) AS f(type_key, place, field_key, label, input_type, required, preset, options) ON f.type_key = t.type_key
WHERE t.tenant_id = skill_system.current_tenant() AND t.type_key = ANY ($1)
ORDER BY t.type_key, f.place
RETURNING (SELECT t.type_key FROM skill_system.entity_type_definitions t
    WHERE t.tenant_id = entity_field_definitions.tenant_id AND t.type_id = entity_field_definitions.type_id) || '.' || field_key
