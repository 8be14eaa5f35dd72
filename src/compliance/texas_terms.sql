-- The terms of rules and evidence of the Railroad Commission of Texas.
INSERT INTO skill_system.compliance_terms (kind, term, description) VALUES
    ('rule_type', 'statewide', 'Applies to every filing of its domain.'),
    ('rule_type', 'field_specific', 'Applies in the field that its rule_data names.'),
    ('rule_type', 'notice', 'An announcement; applies like a statewide rule.'),
    ('rule_source', 'rrc_ingestion', 'Read from the publications of the Commission.'),
    ('rule_source', 'rule_monitor_agent', 'Found by the agent that watches the rules.'),
    ('rule_source', 'manual', 'Entered by a person.'),
    ('rule_source', 'docket_hearing', 'Ordered in a hearing.'),
    ('artifact_type', 'document', NULL),
    ('artifact_type', 'pdf', NULL),
    ('artifact_type', 'plat_draft', 'A draft of a plat.'),
    ('artifact_type', 'data_export', NULL),
    ('artifact_type', 'waiver', 'A waiver of an offset operator.'),
    ('artifact_type', 'form_draft', 'A draft of a form of the Commission.')
ON CONFLICT DO NOTHING
RETURNING kind, term::text
