-- Terms: the values that a tenant takes for what would otherwise be enumerations, and those of the Railroad Commission of Texas.

CREATE TABLE skill_system.compliance_terms (
    tenant_id   text        NOT NULL DEFAULT skill_system.current_tenant(),
    kind        text        NOT NULL CHECK (kind IN ('rule_type', 'rule_source', 'artifact_type')),
    term        varchar(50) NOT NULL CHECK (pg_catalog.btrim(term) <> ''),
    description text,
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, kind, term)
);
COMMENT ON TABLE skill_system.compliance_terms IS
'The terms that publish_rule(), propose_rule() and add_artifact() take as rule_type, source and artifact_type. Of a kind for which the '
'tenant lists nothing, they take any. install_texas_rrc() lists those of the Railroad Commission of Texas. Administrators write it '
'directly: INSERT INTO skill_system.compliance_terms (kind, term) VALUES (''rule_source'', ''gazette'');';
COMMENT ON COLUMN skill_system.compliance_terms.tenant_id IS 'Tenant that takes the term.';
COMMENT ON COLUMN skill_system.compliance_terms.kind IS 'rule_type, rule_source or artifact_type.';
COMMENT ON COLUMN skill_system.compliance_terms.term IS 'The term. A rule of the type field_specific applies only in the field it names.';
COMMENT ON COLUMN skill_system.compliance_terms.description IS 'What it means.';
COMMENT ON COLUMN skill_system.compliance_terms.created_at IS 'When it was listed.';

CREATE TRIGGER skill_system_audit_insert AFTER INSERT ON skill_system.compliance_terms
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');
CREATE TRIGGER skill_system_audit AFTER UPDATE OR DELETE ON skill_system.compliance_terms
    FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change('except', 'created_at');

CREATE FUNCTION skill_system.install_texas_rrc() RETURNS TABLE (kind text, name text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_install_texas_rrc' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.install_texas_rrc() IS
'Adds to the session''s tenant what filings with the Railroad Commission of Texas use, and returns what it added: terms of '
'compliance_terms, validation presets (with those of install_validation_presets()), the entity types well, lease and facility with fields, '
'relationships and rrc_field_mappings. What exists is left unchanged. Example: SELECT * FROM skill_system.install_texas_rrc();';

GRANT SELECT ON skill_system.compliance_terms TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
-- Not created_at: it distinguishes new rows from restored ones.
GRANT INSERT (kind, term, description), UPDATE (term, description) ON skill_system.compliance_terms TO skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.install_texas_rrc() TO skill_system_admin;
