-- The kinds of entities of the Railroad Commission of Texas.
INSERT INTO skill_system.entity_type_definitions (type_key, display_name, icon, color, compliance_footprint, is_system_type) VALUES
    ('well', 'Well', 'derrick', '#8a5a2b', true, true),
    ('lease', 'Lease', 'map', '#4a7a3b', true, true),
    ('facility', 'Facility', 'tank', '#3b5f7a', true, false)
ON CONFLICT DO NOTHING
RETURNING type_key::text
