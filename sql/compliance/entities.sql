-- Entities: the kinds of entities, their fields and their relationships.
-- Administrators write these tables directly; the rows are small and each change is audited.

CREATE TABLE skill_system.entity_type_definitions (
    type_id              uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id            text         NOT NULL DEFAULT skill_system.current_tenant(),
    type_key             varchar(64)  NOT NULL CHECK (type_key ~ '^[a-z][a-z0-9_]*$'),
    display_name         varchar(128) NOT NULL,
    icon                 varchar(64),
    color                varchar(7)   CHECK (color ~ '^#[0-9A-Fa-f]{6}$'),
    compliance_footprint boolean      NOT NULL DEFAULT false,
    is_system_type       boolean      NOT NULL DEFAULT false,
    created_at           timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    updated_at           timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, type_id),
    UNIQUE (tenant_id, type_key)
);
COMMENT ON TABLE skill_system.entity_type_definitions IS
'Kinds of entities, such as well, facility and lease. Administrators write it directly: INSERT INTO skill_system.entity_type_definitions '
'(type_key, display_name) VALUES (''well'', ''Well''); then entity_field_definitions. validate_entity() and entity_json_schema() read it. '
'A system type cannot be deleted.';
COMMENT ON COLUMN skill_system.entity_type_definitions.type_id IS 'UUID of the type.';
COMMENT ON COLUMN skill_system.entity_type_definitions.tenant_id IS 'Tenant the type belongs to.';
COMMENT ON COLUMN skill_system.entity_type_definitions.type_key IS 'Its key: lower-case letters, digits and _. Unique in the tenant.';
COMMENT ON COLUMN skill_system.entity_type_definitions.display_name IS 'Display name.';
COMMENT ON COLUMN skill_system.entity_type_definitions.icon IS 'Name of an icon.';
COMMENT ON COLUMN skill_system.entity_type_definitions.color IS 'Colour as #rrggbb.';
COMMENT ON COLUMN skill_system.entity_type_definitions.compliance_footprint IS 'Entities of this type belong in the compliance matrix.';
COMMENT ON COLUMN skill_system.entity_type_definitions.is_system_type IS 'The type cannot be deleted, nor stop being a system type.';
COMMENT ON COLUMN skill_system.entity_type_definitions.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.entity_type_definitions.updated_at IS 'When it was changed last; kept by the server.';

CREATE TABLE skill_system.validation_presets (
    preset_key  varchar(64)  NOT NULL CHECK (preset_key ~ '^[a-z][a-z0-9_]*$'),
    pattern     text         NOT NULL,
    description text         NOT NULL,
    example     text         NOT NULL,
    created_at  timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    tenant_id   text         NOT NULL DEFAULT skill_system.current_tenant(),
    PRIMARY KEY (tenant_id, preset_key)
);
COMMENT ON TABLE skill_system.validation_presets IS
'Named patterns of texts for entity_field_definitions.validation_preset. The pattern is matched against the whole value in time linear in '
'its length. install_validation_presets() fills it; add more with INSERT INTO skill_system.validation_presets (preset_key, pattern, '
'description, example) VALUES (''permit'', ''[A-Z]{2}-[0-9]{4}'', ''number of a permit'', ''AB-1234'');';
COMMENT ON COLUMN skill_system.validation_presets.preset_key IS 'Key, unique in the tenant.';
COMMENT ON COLUMN skill_system.validation_presets.pattern IS
'Regular expression for the whole value, in the syntax of Rust''s regex crate; checked when it is written.';
COMMENT ON COLUMN skill_system.validation_presets.description IS 'What the pattern is, in words. Part of the message of validate_entity().';
COMMENT ON COLUMN skill_system.validation_presets.example IS 'A value that matches; checked when it is written.';
COMMENT ON COLUMN skill_system.validation_presets.created_at IS 'When it was created.';
COMMENT ON COLUMN skill_system.validation_presets.tenant_id IS 'Tenant the preset belongs to.';

CREATE TABLE skill_system.entity_field_definitions (
    field_id          uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    type_id           uuid         NOT NULL,
    tenant_id         text         NOT NULL DEFAULT skill_system.current_tenant(),
    field_key         varchar(64)  NOT NULL CHECK (field_key ~ '^[a-z][a-z0-9_]*$' AND field_key <> 'relationships'),
    label             varchar(128) NOT NULL,
    input_type        varchar(32)  NOT NULL CHECK (input_type::text IN
        ('text', 'textarea', 'number', 'integer', 'boolean', 'date', 'datetime', 'select', 'multiselect', 'json')),
    required          boolean      NOT NULL DEFAULT false,
    validation_preset varchar(64),
    options           jsonb        CHECK (pg_catalog.jsonb_typeof(options) = 'array'),
    display_group     varchar(64),
    sort_order        integer      NOT NULL DEFAULT 0,
    created_at        timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, field_id),
    UNIQUE (tenant_id, type_id, field_key),
    CHECK (input_type::text NOT IN ('select', 'multiselect') OR coalesce(pg_catalog.jsonb_array_length(options), 0) > 0),
    FOREIGN KEY (tenant_id, type_id) REFERENCES skill_system.entity_type_definitions (tenant_id, type_id) ON DELETE CASCADE,
    -- Without the foreign key a missing preset would silently disable the check.
    FOREIGN KEY (tenant_id, validation_preset) REFERENCES skill_system.validation_presets (tenant_id, preset_key)
);
CREATE INDEX idx_efd_type_order ON skill_system.entity_field_definitions (tenant_id, type_id, sort_order);
COMMENT ON TABLE skill_system.entity_field_definitions IS
'Fields of the kinds of entities. Administrators write it directly: INSERT INTO skill_system.entity_field_definitions (type_id, '
'field_key, label, input_type, required, validation_preset) VALUES (..., ''api_number'', ''API number'', ''text'', true, '
'''api_well_number'');';
COMMENT ON COLUMN skill_system.entity_field_definitions.field_id IS 'UUID of the field.';
COMMENT ON COLUMN skill_system.entity_field_definitions.type_id IS 'Type it is a field of.';
COMMENT ON COLUMN skill_system.entity_field_definitions.tenant_id IS 'Tenant of the type.';
COMMENT ON COLUMN skill_system.entity_field_definitions.field_key IS 'Its key in the entity''s JSON. Unique in the type.';
COMMENT ON COLUMN skill_system.entity_field_definitions.label IS 'Display name.';
COMMENT ON COLUMN skill_system.entity_field_definitions.input_type IS
'text, textarea, number, integer, boolean, date, datetime, select, multiselect or json.';
COMMENT ON COLUMN skill_system.entity_field_definitions.required IS 'An entity must have a value that is not empty.';
COMMENT ON COLUMN skill_system.entity_field_definitions.validation_preset IS 'Pattern that a text must match, from validation_presets.';
COMMENT ON COLUMN skill_system.entity_field_definitions.options IS
'Allowed values, for select and multiselect: a JSON array of values, or of objects with a member value.';
COMMENT ON COLUMN skill_system.entity_field_definitions.display_group IS 'Group of fields in a form.';
COMMENT ON COLUMN skill_system.entity_field_definitions.sort_order IS 'Place in a form.';
COMMENT ON COLUMN skill_system.entity_field_definitions.created_at IS 'When it was created.';

CREATE TABLE skill_system.entity_relationship_rules (
    rule_id        uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id      text         NOT NULL DEFAULT skill_system.current_tenant(),
    parent_type_id uuid         NOT NULL,
    child_type_id  uuid         NOT NULL,
    cardinality    varchar(16)  NOT NULL DEFAULT 'one_to_many'
        CHECK (cardinality::text IN ('one_to_one', 'one_to_many', 'many_to_one', 'many_to_many')),
    required       boolean      NOT NULL DEFAULT false,
    display_label  varchar(128),
    created_at     timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, rule_id),
    UNIQUE (tenant_id, parent_type_id, child_type_id),
    FOREIGN KEY (tenant_id, parent_type_id) REFERENCES skill_system.entity_type_definitions (tenant_id, type_id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, child_type_id) REFERENCES skill_system.entity_type_definitions (tenant_id, type_id) ON DELETE CASCADE
);
-- The unique constraint's index serves look-ups by tenant and by parent.
CREATE INDEX idx_err_child ON skill_system.entity_relationship_rules (tenant_id, child_type_id);
COMMENT ON TABLE skill_system.entity_relationship_rules IS
'Which kinds of entities may be related. validate_entity() checks the member relationships of an entity against it: {"relationships": '
'{"lease": ["08-12345"]}}. Administrators write it directly.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.rule_id IS 'UUID of the rule.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.tenant_id IS 'Tenant of both types.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.parent_type_id IS 'Type of the parent, for example lease.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.child_type_id IS 'Type of the child, for example well.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.cardinality IS
'Read parent to child: one_to_many means that a child has at most one parent.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.required IS 'A child must name its parent.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.display_label IS 'Display name of the relationship.';
COMMENT ON COLUMN skill_system.entity_relationship_rules.created_at IS 'When it was created.';

CREATE TABLE skill_system.rrc_field_mappings (
    mapping_id      uuid         NOT NULL DEFAULT skill_system.uuid_v7(),
    tenant_id       text         NOT NULL DEFAULT skill_system.current_tenant(),
    type_id         uuid         NOT NULL,
    rrc_field_key   varchar(128) NOT NULL,
    entity_field_id uuid         NOT NULL,
    created_at      timestamptz  NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, mapping_id),
    FOREIGN KEY (tenant_id, type_id) REFERENCES skill_system.entity_type_definitions (tenant_id, type_id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, entity_field_id) REFERENCES skill_system.entity_field_definitions (tenant_id, field_id) ON DELETE CASCADE
);
CREATE INDEX idx_rfm_type ON skill_system.rrc_field_mappings (tenant_id, type_id);
COMMENT ON TABLE skill_system.rrc_field_mappings IS
'Where a field of a source''s records goes in an entity, for example of the Railroad Commission of Texas; map_import() follows it. '
'Administrators write it directly.';
COMMENT ON COLUMN skill_system.rrc_field_mappings.mapping_id IS 'UUID of the mapping.';
COMMENT ON COLUMN skill_system.rrc_field_mappings.tenant_id IS 'Tenant of the type.';
COMMENT ON COLUMN skill_system.rrc_field_mappings.type_id IS 'Type of the entity.';
COMMENT ON COLUMN skill_system.rrc_field_mappings.rrc_field_key IS 'Name of the field in the source record.';
COMMENT ON COLUMN skill_system.rrc_field_mappings.entity_field_id IS 'Field of the entity that takes its value.';
COMMENT ON COLUMN skill_system.rrc_field_mappings.created_at IS 'When it was created.';

CREATE FUNCTION skill_system.guard_entity_type() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_entity_type' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.guard_entity_type() IS
'Trigger function of entity_type_definitions: rejects deleting a system type or turning it into an ordinary one. Fires at the origin.';
CREATE FUNCTION skill_system.guard_preset() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_preset' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.guard_preset() IS
'Trigger function of validation_presets: rejects a pattern that is invalid or does not match its own example. Fires at the origin.';

CREATE TRIGGER guard_entity_type BEFORE UPDATE OR DELETE ON skill_system.entity_type_definitions
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_entity_type();
CREATE TRIGGER trg_etd_updated BEFORE UPDATE ON skill_system.entity_type_definitions
    FOR EACH ROW EXECUTE FUNCTION skill_system.keep_updated_at();
CREATE TRIGGER guard_preset BEFORE INSERT OR UPDATE ON skill_system.validation_presets
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_preset();
-- Every change is audited, except rows that a restore brings back: those are older than its transaction.
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.entity_type_definitions
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now())
        EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.entity_type_definitions
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at', 'updated_at');
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.validation_presets
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.validation_presets
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.entity_field_definitions
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.entity_field_definitions
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.entity_relationship_rules
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.entity_relationship_rules
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.rrc_field_mappings
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.rrc_field_mappings
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');

CREATE FUNCTION skill_system.install_validation_presets() RETURNS TABLE (preset_key text, installed boolean)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_install_validation_presets' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.install_validation_presets() IS
'Adds the usual presets to validation_presets of the session''s tenant: email, url, iso_date, iso_datetime, us_phone, us_zip, latitude, '
'longitude. Existing presets are left unchanged; install_texas_rrc() adds more. Example: SELECT * FROM '
'skill_system.install_validation_presets();';

CREATE FUNCTION skill_system.validate_entity(type_key text, data jsonb) RETURNS TABLE (field text, code text, message text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_validate_entity' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.validate_entity(text, jsonb) IS
'Problems of an entity, one row each, no rows if none exist. Call it before storing or filing anything about an entity. Codes: '
'required, wrong_type, not_an_option, invalid_format, unknown_field, relationship_required, relationship_not_allowed, too_many_related. '
'Raises 42704 for an unknown type, 22023 when data is not an object, 54000 when it is too large or too deep. Example: SELECT * FROM '
'skill_system.validate_entity(''well'', ''{"api_number": "42-501-20130"}'');';

CREATE FUNCTION skill_system.entity_json_schema(type_key text) RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_entity_json_schema' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.entity_json_schema(text) IS
'The definition of a kind of entity as JSON Schema 2020-12, for forms, for model output and for checks elsewhere. Raises 42704 for an '
'unknown type. Example: SELECT jsonb_pretty(skill_system.entity_json_schema(''well''));';

CREATE TYPE skill_system.imported_entity AS (entity jsonb, unmapped jsonb, missing text[]);
COMMENT ON TYPE skill_system.imported_entity IS
'Result of map_import(). entity: what to store. unmapped: the members of the record without a mapping. missing: required fields that the '
'record does not set.';
CREATE FUNCTION skill_system.map_import(type_key text, record jsonb) RETURNS skill_system.imported_entity
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_map_import' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.map_import(text, jsonb) IS
'Converts a source record into an entity by rrc_field_mappings: texts are trimmed, numbers, yes/no and dates (YYYYMMDD, MM/DD/YYYY) are '
'converted to the type of the field, empty texts are omitted. A value that cannot be converted is kept for validate_entity() to report. '
'Raises 42704 for an unknown type, 22023 when the record is not an object. Example: SELECT * FROM skill_system.map_import(''well'', '
'''{"API_NO": "4250120130", "TOTAL_DEPTH": "08120"}'');';

GRANT USAGE ON TYPE skill_system.imported_entity
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT SELECT ON skill_system.entity_type_definitions, skill_system.validation_presets, skill_system.entity_field_definitions,
    skill_system.entity_relationship_rules, skill_system.rrc_field_mappings
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- Not created_at: it distinguishes new rows from restored ones.
GRANT INSERT (type_key, display_name, icon, color, compliance_footprint, is_system_type),
    UPDATE (type_key, display_name, icon, color, compliance_footprint, is_system_type)
    ON skill_system.entity_type_definitions TO skill_system_admin;
GRANT INSERT (preset_key, pattern, description, example), UPDATE (preset_key, pattern, description, example)
    ON skill_system.validation_presets TO skill_system_admin;
GRANT INSERT (type_id, field_key, label, input_type, required, validation_preset, options, display_group, sort_order),
    UPDATE (type_id, field_key, label, input_type, required, validation_preset, options, display_group, sort_order)
    ON skill_system.entity_field_definitions TO skill_system_admin;
GRANT INSERT (parent_type_id, child_type_id, cardinality, required, display_label),
    UPDATE (parent_type_id, child_type_id, cardinality, required, display_label)
    ON skill_system.entity_relationship_rules TO skill_system_admin;
GRANT INSERT (type_id, rrc_field_key, entity_field_id), UPDATE (type_id, rrc_field_key, entity_field_id)
    ON skill_system.rrc_field_mappings TO skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.install_validation_presets() TO skill_system_admin;
GRANT EXECUTE ON FUNCTION
    skill_system.validate_entity(text, jsonb), skill_system.entity_json_schema(text), skill_system.map_import(text, jsonb)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
