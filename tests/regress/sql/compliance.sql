\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = error; -- no warning of roles that have members
CREATE EXTENSION skill_system;
RESET client_min_messages;
\pset null '(null)'
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- Presets: the usual ones, once; a pattern must be valid and match its example.
SELECT count(*), count(*) FILTER (WHERE installed) AS installed FROM skill_system.install_validation_presets();
SELECT count(*), count(*) FILTER (WHERE installed) AS installed FROM skill_system.install_validation_presets();
INSERT INTO skill_system.validation_presets (preset_key, pattern, description, example) VALUES ('broken', 'a)|(b', 'x', 'a');
INSERT INTO skill_system.validation_presets (preset_key, pattern, description, example) VALUES ('inert', '[0-9]+', 'x', 'a');
INSERT INTO skill_system.validation_presets (preset_key, pattern, description, example)
    VALUES ('bomb', '(((a{100}){100}){100}){100}', 'x', 'a');

-- Kinds of entities.
INSERT INTO skill_system.entity_type_definitions (type_key, display_name, compliance_footprint, is_system_type)
VALUES ('lease', 'Lease', true, true), ('well', 'Well', true, false), ('survey', 'Survey', false, false);
-- Those of one authority: types that exist keep their definition.
SELECT kind, string_agg(name, ', ' ORDER BY name COLLATE "C") AS names FROM skill_system.install_texas_rrc() GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM skill_system.install_texas_rrc();
SELECT type_id AS well FROM skill_system.entity_type_definitions WHERE type_key = 'well' \gset
SELECT type_id AS lease FROM skill_system.entity_type_definitions WHERE type_key = 'lease' \gset
INSERT INTO skill_system.entity_field_definitions (type_id, field_key, label, input_type, required, validation_preset, options,
    sort_order) VALUES
    (:'well', 'api_number', 'API number', 'text', true, 'api_well_number', NULL, 1),
    (:'well', 'total_depth', 'Total depth', 'number', false, NULL, NULL, 2),
    (:'well', 'spud_date', 'Spud date', 'date', false, NULL, NULL, 3),
    (:'well', 'kind', 'Kind', 'select', false, NULL, '["oil", {"value": "gas", "label": "Gas well"}]', 4),
    (:'well', 'contact', 'Contact', 'text', false, 'email', NULL, 5);
INSERT INTO skill_system.entity_relationship_rules (parent_type_id, child_type_id, required) VALUES (:'lease', :'well', true);
INSERT INTO skill_system.entity_field_definitions (type_id, field_key, label, input_type, validation_preset)
    VALUES (:'well', 'x', 'X', 'text', 'no_such_preset');
\set VERBOSITY terse
INSERT INTO skill_system.entity_field_definitions (type_id, field_key, label, input_type) VALUES (:'well', 'x', 'X', 'select');
\set VERBOSITY default
SELECT * FROM skill_system.validate_entity('well',
    '{"api_number": "42-501-20130", "total_depth": 8120.5, "kind": "gas", "relationships": {"lease": ["60481"]}}');
SELECT * FROM skill_system.validate_entity('well',
    '{"total_depth": "deep", "spud_date": "2026-02-30", "kind": "coal", "contact": "nobody", "colour": "red", "relationships": {"lease": '
    '["1", "2"], "survey": ["3"]}}');
SELECT * FROM skill_system.validate_entity('rig', '{}');
SELECT * FROM skill_system.validate_entity('well', '[]');
SELECT * FROM skill_system.validate_entity('well', NULL);
SELECT * FROM skill_system.validate_entity('well', (repeat('[', 2000) || repeat(']', 2000))::jsonb);
SELECT * FROM skill_system.validate_entity('well', jsonb_build_object('a', repeat('x', 2000000)));
SELECT * FROM skill_system.validate_entity('well', '{"total_depth": 1e999}');
SELECT jsonb_pretty(skill_system.entity_json_schema('well') - '$id');
INSERT INTO skill_system.rrc_field_mappings (type_id, rrc_field_key, entity_field_id)
SELECT type_id, m.rrc, field_id FROM skill_system.entity_field_definitions f
JOIN (VALUES ('API_NO', 'api_number'), ('TOTAL_DEPTH', 'total_depth'), ('SPUD_DT', 'spud_date')) AS m(rrc, field_key) USING (field_key);
SELECT * FROM skill_system.map_import('well', '{"API_NO": " 4250120130 ", "TOTAL_DEPTH": "08120", "SPUD_DT": "20260131", "OPERATOR_NO": '
    '"253162"}');
SELECT * FROM skill_system.map_import('well', '{"SPUD_DT": "20260230"}');
SELECT * FROM skill_system.map_import('well', '7');
DELETE FROM skill_system.entity_type_definitions WHERE type_key = 'lease';
UPDATE skill_system.entity_type_definitions SET is_system_type = false WHERE type_key = 'lease';
UPDATE skill_system.entity_type_definitions SET color = '#aa0000' WHERE type_key = 'lease' RETURNING updated_at > created_at AS updated;
DELETE FROM skill_system.entity_type_definitions WHERE type_key = 'survey';
SELECT event_type, event_data->>'table' AS "table", count(*) FROM skill_system.audit_logs WHERE event_type LIKE 'row.%' GROUP BY 1, 2
    ORDER BY 1, 2;

-- Rules: versions, periods, proposals.
SELECT rule_identifier, version, status, supersedes_id, stale_snapshots
FROM skill_system.publish_rule('SWR_37', 'spacing', '2020-01-01', '{"min_distance_ft": 467, "between_wells_ft": 1200}', 'manual',
    source_reference => '16 TAC 3.37');
SELECT version, status, supersedes_id IS NOT NULL AS supersedes
FROM skill_system.publish_rule('SWR_37', 'spacing', '2024-07-01', '{"min_distance_ft": 467, "between_wells_ft": 933}', 'docket_hearing',
    change_summary => 'closer wells');
SELECT version FROM skill_system.publish_rule('SWR_32', 'flaring', '2021-01-01', '{"max_days": 10}', 'manual');
SELECT version FROM skill_system.publish_rule('FIELD_SPRABERRY', 'spacing', '2021-01-01',
    '{"field": "SPRABERRY (TREND AREA)", "min_distance_ft": 330}', 'rrc_ingestion', 'field_specific');
SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', '2023-01-01', '{}', 'manual');
SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', '2025-01-01', '[]', 'manual');
SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', '2025-01-01', '{}', 'rumour');
SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', NULL, '{}', 'manual');
SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', 'infinity', '{}', 'manual');
SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', '2025-01-01', '{"x": 12345678901234567890123}', 'manual');
SELECT version FROM skill_system.publish_rule('SWR_99', 'spacing', '2025-01-01', '{}', 'manual', 'field_specific');
SELECT rule_identifier, version, effective_date, superseded_date, status FROM skill_system.rule_versions ORDER BY 1, 2;
SELECT day, r.version FROM (VALUES (date '2019-12-31'), ('2020-01-01'), ('2024-06-30'), ('2024-07-01'), ('2030-01-01')) AS d(day)
LEFT JOIN LATERAL skill_system.rule_as_of('SWR_37', day) r ON true ORDER BY 1;
SELECT d.* FROM skill_system.rule_versions a, skill_system.rule_versions b, skill_system.diff_rules(a.id, b.id) d
WHERE (a.rule_identifier, a.version, b.rule_identifier, b.version) = ('SWR_37', 1, 'SWR_37', 2);
SELECT * FROM skill_system.diff_rules('00000000-0000-0000-0000-000000000000', NULL);
-- The constraint, for every role.
INSERT INTO skill_system.rule_versions (rule_type, rule_domain, rule_identifier, version, effective_date, source, rule_data, content_sha256)
VALUES ('statewide', 'spacing', 'SWR_37', 9, '2022-01-01', 'manual', '{}', 'x');
UPDATE skill_system.rule_versions SET rule_data = '{}' WHERE rule_identifier = 'SWR_37';
DELETE FROM skill_system.rule_versions;
TRUNCATE skill_system.rule_versions CASCADE;

-- Templates and checklists.
SELECT version FROM skill_system.create_template('rule_37',
    '[{"label": "Plat"}, {"label": "Offset operators notified", "item_type": "letter"}, {"label": "Waivers"}]', '[0, 1]', '{spacing}');
SELECT version FROM skill_system.create_template('flaring_monitor', '[{"label": "Volumes"}]', rule_domains => '{flaring}');
SELECT version FROM skill_system.create_template('rule_37', '[{"label": "Plat"}, {"lable": "x"}]');
SELECT version FROM skill_system.create_template('rule_37', '[{"label": "Plat"}]', '[1]');
SELECT version FROM skill_system.create_template('rule_37', '{}');
SELECT checklist_id AS c1, status, version FROM skill_system.create_checklist('42-501-20130', 'well', 'rule_37', 'Wasson 12H',
    now() + interval '30 days', entity_district => '8A', actor_id => 'rule37-agent') \gset
SELECT :'status' AS status, :version AS version;
SELECT checklist_id AS c2 FROM skill_system.create_checklist('42-501-20131', 'well', 'rule_37',
    entity_field => 'SPRABERRY (TREND AREA)') \gset
SELECT c.entity_id, v.rule_identifier, v.version, s.is_current FROM skill_system.filing_rule_snapshots s
JOIN skill_system.filing_checklists c ON c.id = s.checklist_id JOIN skill_system.rule_versions v ON v.id = s.rule_version_id ORDER BY 1, 2;
SELECT * FROM skill_system.create_checklist('x', 'well', 'nothing');
SELECT * FROM skill_system.create_checklist('x', 'well', 'rule_37', deadline => now() - interval '1 day');
SELECT * FROM skill_system.create_checklist('', 'well', 'rule_37');
SELECT * FROM skill_system.create_checklist('x', 'well', 'rule_37', metadata => '[]');
UPDATE skill_system.checklist_templates SET items = '[{"label": "Nothing"}]' WHERE compliance_domain = 'rule_37';
UPDATE skill_system.checklist_templates SET items = '[{"label": "Volumes and days"}]' WHERE compliance_domain = 'flaring_monitor'
    RETURNING version;
SELECT * FROM skill_system.missing_items(:'c1');
SELECT * FROM skill_system.submit_checklist(:'c1');
SELECT status, version FROM skill_system.update_checklist_item(:'c1', 0, 'complete', note => 'sealed plat', actor_id => 'ann');
SELECT status, version FROM skill_system.update_checklist_item(:'c1', 1, 'in_progress', 1);
SELECT status, version FROM skill_system.update_checklist_item(:'c1', 1, 'in_progress', 2, data => '{"letters": 3}');
SELECT items - 0 AS others, (items->0) - 'updated_at' AS first FROM skill_system.filing_checklists WHERE id = :'c1' \gset
SELECT :'first' AS first;
SELECT * FROM skill_system.submit_checklist(:'c1');
SELECT * FROM skill_system.update_checklist_item(:'c1', 3, 'complete');
SELECT * FROM skill_system.update_checklist_item(:'c1', 0, 'done');
SELECT * FROM skill_system.update_checklist_item('00000000-0000-0000-0000-000000000000', 0, 'complete');
SELECT * FROM skill_system.review_checklist(:'c1', 'approved',
    expected_version => (SELECT version FROM skill_system.filing_checklists WHERE id = :'c1'));
SELECT status, version FROM skill_system.update_checklist_item(:'c1', 1, 'complete');

-- Evidence.
SELECT content_sha256, size_bytes FROM skill_system.add_artifact(:'c1', 0, 'plat_draft', 'plat.md', '# Plat', 'text/markdown');
SELECT size_bytes FROM skill_system.add_artifact(:'c1', 1, 'pdf', 'waiver.pdf', content_type => 'application/pdf',
    file_path => '/evidence/waiver.pdf', content_sha256 => 'sha256:' || repeat('0', 64), size_bytes => 2048, actor_type => 'user');
SELECT * FROM skill_system.add_artifact(:'c1', 0, 'document', 'large', repeat('x', 10000000));
SELECT * FROM skill_system.add_artifact(:'c1', 0, 'document', 'other', 'abc', content_sha256 => 'sha256:' || repeat('0', 64));
SELECT * FROM skill_system.add_artifact(:'c1', 0, 'document', 'file', file_path => '/x', content_sha256 => 'md5:1', size_bytes => 1);
SELECT * FROM skill_system.add_artifact(:'c1', 0, 'document', 'nothing');
SELECT * FROM skill_system.add_artifact(:'c1', 7, 'document', 'x', 'x');
SELECT * FROM skill_system.add_artifact(:'c1', 0, 'song', 'x', 'x');
SELECT * FROM skill_system.add_artifact(:'c1', 0, 'document', 'x', 'x', 'plain');
UPDATE skill_system.checklist_artifacts SET content = 'other';

UPDATE skill_system.filing_rule_snapshots SET rule_data_at_snapshot = '{}' WHERE checklist_id = :'c1';

-- Submit, a rule changes, review; the stale rule prevents filing.
SELECT status, version FROM skill_system.submit_checklist(:'c1', 'rule37-agent');
SELECT status FROM skill_system.update_checklist_item(:'c1', 1, 'pending');
SELECT status FROM skill_system.review_checklist(:'c1', 'in_review', 'j.doe');
SELECT status FROM skill_system.review_checklist(:'c1', 'perhaps', 'j.doe');
SELECT status FROM skill_system.review_checklist(:'c1', 'approved', 'j.doe', 'plat checked',
    (SELECT version FROM skill_system.filing_checklists WHERE id = :'c1'));
SELECT status, version, stale_snapshots FROM skill_system.propose_rule('SWR_37', 'spacing', CURRENT_DATE + 10,
    '{"min_distance_ft": 330, "between_wells_ft": 933}', 'rule_monitor_agent', draft => true);
SELECT id AS draft FROM skill_system.rule_versions WHERE rule_identifier = 'SWR_37' AND version = 3 \gset
SELECT status FROM skill_system.review_rule(:'draft', 'approved');
SELECT status FROM skill_system.submit_rule(:'draft');
SELECT status FROM skill_system.review_rule(:'draft', 'rejected', 'chief', 'wrong table');
SELECT rejected_by, rejected_at IS NOT NULL AS rejected, rejection_reason, approved_by FROM skill_system.rule_versions WHERE id = :'draft';
SELECT status FROM skill_system.submit_rule(:'draft');
SELECT status, stale_snapshots FROM skill_system.review_rule(:'draft', 'approved', 'chief');
SELECT rule_identifier, frozen_version, current_version, entity_id, status FROM skill_system.stale_filings() ORDER BY entity_id;
SELECT snapshot_id AS s1 FROM skill_system.stale_filings() WHERE checklist_id = :'c1' \gset
SELECT snapshot_id AS s2 FROM skill_system.stale_filings() WHERE checklist_id = :'c2' \gset
SELECT * FROM skill_system.snapshot_diff(:'s1');
SELECT * FROM skill_system.file_checklist(:'c1');
SELECT skill_system.acknowledge_stale(:'s1', 'j.doe', 'permit predates the change', 2);
SELECT skill_system.acknowledge_stale(:'s1', 'j.doe', '');
SELECT skill_system.acknowledge_stale(:'s1', 'j.doe', 'permit predates the change', 3);
SELECT skill_system.acknowledge_stale(:'s1', 'j.doe', 'again');
-- A later version voids the acknowledgement.
SELECT version, stale_snapshots FROM skill_system.publish_rule('SWR_37', 'spacing', CURRENT_DATE + 20,
    '{"min_distance_ft": 300, "between_wells_ft": 933}', 'manual');
SELECT * FROM skill_system.file_checklist(:'c1');
SELECT skill_system.acknowledge_stale(:'s1', 'j.doe', 'permit predates the change', 4);
SELECT status, version FROM skill_system.file_checklist(:'c1', 'j.doe', 'RRC 881204');
SELECT * FROM skill_system.update_checklist_item(:'c1', 0, 'pending');
SELECT * FROM skill_system.mark_exception(:'c1', 'late');
SELECT * FROM skill_system.add_artifact(:'c1', 0, 'document', 'x', 'x');
SELECT skill_system.refresh_snapshot(:'s1');
UPDATE skill_system.filing_checklists SET items = '[]' WHERE id = :'c1';
UPDATE skill_system.filing_checklists SET status = 'approved' WHERE id = :'c2';
-- The other filing adopts the new rule, which voids its review.
SELECT status FROM skill_system.update_checklist_item(:'c2', 0, 'complete');
SELECT status FROM skill_system.update_checklist_item(:'c2', 1, 'complete');
SELECT status FROM skill_system.submit_checklist(:'c2');
SELECT status FROM skill_system.review_checklist(:'c2', 'approved');
SELECT status FROM skill_system.review_checklist(:'c2', 'approved',
    expected_version => (SELECT version FROM skill_system.filing_checklists WHERE id = :'c2'));
SELECT skill_system.refresh_snapshot(:'s2') IS NOT NULL AS refreshed;
SELECT skill_system.refresh_snapshot(:'s2');
SELECT status FROM skill_system.filing_checklists WHERE id = :'c2';
SELECT count(*) FROM skill_system.stale_filings();
SELECT skill_system.snapshot_rules(:'c2');
SELECT version FROM skill_system.publish_rule('SWR_38', 'spacing', '2026-01-01', '{"acres": 40}', 'manual');
SELECT skill_system.snapshot_rules(:'c2');
SELECT status FROM skill_system.mark_exception(:'c2', '  ');
SELECT status FROM skill_system.mark_exception(:'c2', 'well plugged', 'j.doe');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM skill_system.publish_rule('SWR_37', 'spacing', CURRENT_DATE + 30, '{}', 'manual');
ROLLBACK;

-- The matrix.
SELECT * FROM skill_system.assess_compliance('default', '42-501-20130');
SELECT * FROM skill_system.assess_compliance('other', '42-501-20130');
SELECT * FROM skill_system.assess_compliance('default', 'nobody');
SELECT * FROM skill_system.assess_compliance('default', '42-501-20130', 'well', 'form_pr', 'action_needed', now() - interval '2 days',
    entity_district => '8A');
SELECT * FROM skill_system.assess_compliance('default', '42-501-20130', 'well', 'form_pr', 'overdue');
SELECT checklist_id AS c3 FROM skill_system.create_checklist('42-501-20130', 'well', 'flaring_monitor',
    deadline => now() + interval '5 days') \gset
SELECT * FROM skill_system.assess_compliance('default', '42-501-20130', 'well', 'flaring_monitor', 'compliant');
SELECT entity_id, entity_type, entity_name, entity_district, statuses, worst FROM skill_system.compliance_matrix();
SELECT entity_id FROM skill_system.compliance_matrix(worst_only => 'not_applicable');
SELECT entity_id FROM skill_system.compliance_matrix('42-501-20130', district => '8A');
SELECT compliance_domain, entity_district, status, entities FROM skill_system.compliance_counts ORDER BY 1, 2, 3;
SELECT entity_id, compliance_domain, status, time_left < interval '0' AS late FROM skill_system.due_filings(7);

SELECT * FROM skill_system.checklist_transitions();
SELECT event_type,
       event_data - '{checklist_id,snapshot_id,rule_version_id,replaced_by,artifact_id,content_sha256}'::text[] AS event_data,
       nullif(actor_id, session_user::text) AS actor_id
FROM skill_system.audit_logs WHERE event_type NOT LIKE 'row.%' ORDER BY recorded_at;
SELECT problem FROM skill_system.verify_audit();

-- Exports.
SELECT document->>'skill_system_compliance_snapshot' AS version, payload->'checklist'->>'status' AS status,
    payload->'entity'->>'entity_id' AS entity_id,
       jsonb_array_length(payload->'rules') AS rules, jsonb_array_length(payload->'artifacts') AS artifacts,
           payload->'artifacts'->0 ? 'content' AS content_told,
       jsonb_array_length(payload->'approvals') AS approvals, jsonb_array_length(payload->'audit') AS records,
           split_part(document->>'note', E'\n', 2) AS kind
FROM (SELECT d AS document, (d->'payload')::jsonb AS payload FROM skill_system.compliance_snapshot(:'c1') d) s;
SELECT skill_system.compliance_snapshot('00000000-0000-0000-0000-000000000000');
SELECT jsonb_pretty(jsonb_path_query_array(skill_system.oscal_assessment_results(),
    '$."assessment-results"."results"[0]."findings"[*].target'));
SELECT skill_system.oscal_assessment_results(max_rows => 0);
SELECT length(skill_system.compliance_report()) > 5000 AS html,
    skill_system.compliance_report('markdown') LIKE '# Compliance report%' AS markdown,
       skill_system.compliance_report('json')::jsonb->'counts' AS counts;
SELECT skill_system.compliance_report('pdf');
SELECT skill_system.compliance_report(max_rows => 100000);
