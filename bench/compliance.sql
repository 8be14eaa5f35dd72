-- AEGIS's tables as a service would use them, with the same rows, for the section compliance of make bench.
CREATE TABLE bench.compliance_status AS SELECT * FROM skill_system.compliance_status;
ALTER TABLE bench.compliance_status ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON bench.compliance_status (tenant_id, entity_id, compliance_domain);
CREATE INDEX ON bench.compliance_status (tenant_id, status);
CREATE INDEX ON bench.compliance_status (tenant_id, compliance_domain);
CREATE INDEX ON bench.compliance_status (tenant_id, deadline);
CREATE TABLE bench.rule_versions AS SELECT * FROM skill_system.rule_versions;
ALTER TABLE bench.rule_versions ADD PRIMARY KEY (id), ADD UNIQUE (tenant_id, rule_identifier, version);
CREATE INDEX ON bench.rule_versions (tenant_id, rule_identifier, status) WHERE status = 'active';
CREATE INDEX ON bench.rule_versions (tenant_id, rule_domain);
CREATE TABLE bench.filing_checklists AS SELECT * FROM skill_system.filing_checklists;
ALTER TABLE bench.filing_checklists ADD PRIMARY KEY (id);
CREATE INDEX ON bench.filing_checklists (tenant_id, entity_id, compliance_domain);
CREATE INDEX ON bench.filing_checklists (tenant_id, status);
CREATE TABLE bench.filing_rule_snapshots AS SELECT * FROM skill_system.filing_rule_snapshots;
ALTER TABLE bench.filing_rule_snapshots ADD PRIMARY KEY (id),
    ADD FOREIGN KEY (checklist_id) REFERENCES bench.filing_checklists ON DELETE CASCADE,
    ADD FOREIGN KEY (rule_version_id) REFERENCES bench.rule_versions, ADD FOREIGN KEY (superseded_by) REFERENCES bench.rule_versions;
CREATE INDEX ON bench.filing_rule_snapshots (checklist_id);
CREATE INDEX ON bench.filing_rule_snapshots (is_current) WHERE is_current = false;
CREATE INDEX ON bench.filing_rule_snapshots (rule_version_id);
GRANT SELECT ON ALL TABLES IN SCHEMA bench TO bench_agent;

-- A service's transaction when a rule changes: no audit, no history of acknowledgements, no lock against filings begun meanwhile.
CREATE FUNCTION bench.publish_rule(identifier text, data jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    old bench.rule_versions;
    new_id uuid := gen_random_uuid();
    stale bigint;
BEGIN
    SELECT * INTO old FROM bench.rule_versions WHERE tenant_id = 'default' AND rule_identifier = identifier
        AND status = 'active' FOR UPDATE;
    UPDATE bench.rule_versions SET status = 'superseded', superseded_date = CURRENT_DATE WHERE id = old.id;
    INSERT INTO bench.rule_versions (id, tenant_id, rule_type, rule_domain, rule_identifier, version, effective_date, source, rule_data,
        status)
    VALUES (new_id, 'default', old.rule_type, old.rule_domain, identifier, old.version + 1, CURRENT_DATE, 'manual', data, 'active');
    UPDATE bench.filing_rule_snapshots s SET is_current = false, superseded_by = new_id FROM bench.filing_checklists c
    WHERE s.rule_version_id IN (SELECT id FROM bench.rule_versions WHERE rule_identifier = identifier AND id <> new_id)
        AND c.id = s.checklist_id AND c.status NOT IN ('filed', 'exception');
    GET DIAGNOSTICS stale = ROW_COUNT;
    RETURN stale;
END $$;
VACUUM ANALYZE;
