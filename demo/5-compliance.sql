-- A rule changes while a filing is open.
\connect - postgres
\echo
\echo '#### 7. A rule changes while a filing is open'
\echo
\echo '1000 wells, leases and facilities in the style of the Railroad Commission of Texas (written for this demo):'
\o /dev/null
\i demo/texas.sql
\o
RESET client_min_messages;
SELECT compliance_domain, sum(entities) FILTER (WHERE status = 'overdue') AS overdue,
    sum(entities) FILTER (WHERE status = 'action_needed') AS action_needed,
       sum(entities) FILTER (WHERE status = 'compliant') AS compliant
FROM skill_system.compliance_counts GROUP BY 1 ORDER BY 1;

\echo 'An agent begins a filing. The rules in force are frozen with it:'
SELECT entity_id, entity_name FROM texas.entities WHERE entity_type = 'well' ORDER BY i LIMIT 1 \gset
SELECT checklist_id AS filing FROM skill_system.create_checklist(:'entity_id', 'well', 'rule_37', :'entity_name',
    now() + interval '30 days', actor_id => 'rule37-agent') \gset
SELECT v.rule_identifier, v.version, s.rule_data_at_snapshot FROM skill_system.filing_rule_snapshots s
JOIN skill_system.rule_versions v ON v.id = s.rule_version_id WHERE s.checklist_id = :'filing' ORDER BY 1;

\echo 'Required items are missing:'
SELECT * FROM skill_system.missing_items(:'filing');
\o /dev/null
SELECT skill_system.update_checklist_item(:'filing', i, 'complete', actor_id => 'rule37-agent') FROM generate_series(0, 2) i;
SELECT skill_system.add_artifact(:'filing', 0, 'plat_draft', 'plat.md', '# Certified plat', 'text/markdown');
SELECT skill_system.submit_checklist(:'filing', 'rule37-agent');
SELECT skill_system.review_checklist(:'filing', 'approved', 'j.doe', 'plat checked', version)
    FROM skill_system.filing_checklists WHERE id = :'filing';
\o
\echo 'They are completed, and the filing is approved. Meanwhile the Commission changes the rule:'
SELECT rule_identifier, version, stale_snapshots FROM skill_system.publish_rule('SWR_37', 'spacing', CURRENT_DATE,
    '{"min_distance_to_line_ft": 330, "min_distance_between_wells_ft": 933}', 'docket_hearing',
        change_summary => 'closer to the lease line');

\echo 'The filing is refused, as it was approved under the old rule:'
\set ON_ERROR_STOP off
SELECT * FROM skill_system.file_checklist(:'filing', 'j.doe');
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' = '55000' AS refused \gset
\if :refused
\else
    DO $$ BEGIN RAISE 'the stale filing was not refused'; END $$;
\endif

\echo 'A reviewer compares the versions, records why the difference does not matter, and files:'
SELECT snapshot_id FROM skill_system.stale_filings() WHERE checklist_id = :'filing' \gset
SELECT rule_identifier, frozen_version, current_version, lines FROM skill_system.snapshot_diff(:'snapshot_id');
\o /dev/null
SELECT skill_system.acknowledge_stale(:'snapshot_id', 'j.doe', 'the application was served under version 2', 3);
\o
SELECT status FROM skill_system.file_checklist(:'filing', 'j.doe', 'RRC 881204');

\echo 'The filing as one signed document, checked by a program without a database:'
\o /dev/null
SELECT * FROM skill_system.seal_audit();
SELECT skill_system.audit_checkpoint();
\o
SELECT verifier_key AS key FROM skill_system.audit_public_key() WHERE active \gset
\setenv DEMO_KEY :key
\pset format unaligned
\pset tuples_only on
SELECT skill_system.compliance_snapshot(:'filing') \g .build/demo-filing.json
SELECT skill_system.compliance_report(title => 'Compliance of the demo') \g .build/demo-report.html
\pset format aligned
\pset tuples_only off
\! "$SKILL_VERIFY" snapshot .build/demo-filing.json --key "$DEMO_KEY" || rm .build/demo-filing.json
\echo 'With one number of the frozen rule changed:'
\! sed 's/467/468/' .build/demo-filing.json | "$SKILL_VERIFY" snapshot - --key "$DEMO_KEY"
\echo
\echo 'The report is in .build/demo-report.html'
