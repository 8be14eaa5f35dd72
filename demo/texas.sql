-- Believable data in the style of the Railroad Commission of Texas, written for this project: wells, facilities and leases
-- with four compliance domains. The same seed and number give the same rows.
--   psql -v entities=1000 -v seed=37 -f demo/texas.sql      (as superuser, in a database with the extension)
\set ON_ERROR_STOP on
\if :{?entities}
\else
    \set entities 1000
\endif
\if :{?seed}
\else
    \set seed 37
\endif
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS texas CASCADE;
CREATE SCHEMA texas;

-- A number from 0 to n - 1 for row i and a purpose.
CREATE FUNCTION texas.pick(i bigint, purpose text, n bigint, seed bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN abs(hashtextextended(purpose || ':' || i, seed) % n);
CREATE FUNCTION texas.one_of(i bigint, purpose text, list text[], seed bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN list[1 + texas.pick(i, purpose, cardinality(list), seed)];

CREATE TABLE texas.entities AS
SELECT i, CASE WHEN kind < 70 THEN 'well' WHEN kind < 90 THEN 'lease' ELSE 'facility' END AS entity_type,
       CASE WHEN kind < 70 THEN format('42-%s-%s', lpad((1 + 2 * texas.pick(i, 'county', 254, :seed))::text, 3, '0'),
           lpad((10000 + i % 90000)::text, 5, '0')) || CASE WHEN i >= 90000 THEN format('-%s', lpad((i / 90000)::text, 2, '0')) ELSE '' END
            WHEN kind < 90 THEN lpad((100000 + i)::text, 6, '0') ELSE 'F-' || lpad(i::text, 6, '0') END AS entity_id,
       texas.one_of(i, 'family', '{Wasson,Sealy Smith,University,McElroy,Fuhrman,Goldsmith,Yates,Scarborough,Dollarhide,Spraberry,Pecan '
           'Bayou,Cowden}', :seed) || ' '
           || texas.one_of(i, 'suffix', '{A,B,Ranch,Unit,State,Estate,Fee,Heirs}', :seed)
           || CASE WHEN kind < 70 THEN format(' %s%s', 1 + texas.pick(i, 'number', 80, :seed), texas.one_of(i, 'bore', '{"",H,HS,D}',
               :seed)) ELSE '' END AS entity_name,
       texas.one_of(i, 'field', '{SPRABERRY (TREND AREA),WASSON,GIDDINGS (AUSTIN CHALK-3),EAGLEVILLE (EAGLE FORD-1),NEWARK EAST (BARNETT '
           'SHALE),YATES,SLAUGHTER,EAST TEXAS,PHANTOM (WOLFCAMP),CARTHAGE}', :seed) AS entity_field,
       texas.one_of(i, 'district', '{01,02,03,04,05,06,6E,7B,7C,08,8A,09,10}', :seed) AS entity_district
FROM (SELECT i, texas.pick(i, 'kind', 100, :seed) AS kind FROM generate_series(1::bigint, :entities) i) n;

SELECT count(*) AS installed FROM skill_system.install_texas_rrc();

SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', '2010-01-01',
    '{"min_distance_to_line_ft": 467, "min_distance_between_wells_ft": 1200}', 'rrc_ingestion', source_reference => '16 TAC 3.37');
SELECT version FROM skill_system.publish_rule('SWR_37', 'spacing', '2021-06-01',
    '{"min_distance_to_line_ft": 467, "min_distance_between_wells_ft": 933}', 'docket_hearing',
    change_summary => 'closer wells in horizontal development');
SELECT version FROM skill_system.publish_rule('SWR_38', 'density', '2010-01-01', '{"acres_per_well": 40, "tolerance_acres": 10}',
    'rrc_ingestion', source_reference => '16 TAC 3.38');
SELECT version FROM skill_system.publish_rule('SWR_32', 'flaring', '2010-01-01', '{"initial_days": 10, "max_permit_days": 180}',
    'rrc_ingestion', source_reference => '16 TAC 3.32');
SELECT version FROM skill_system.publish_rule('SWR_32', 'flaring', '2025-01-01',
    '{"initial_days": 10, "max_permit_days": 90, "report": "R-32"}', 'rule_monitor_agent', change_summary => 'shorter permits');
SELECT version FROM skill_system.publish_rule('FORM_PR', 'reporting', '2010-01-01', '{"due_day_of_next_month": 30}', 'manual',
    source_reference => 'Form PR instructions');
SELECT version FROM skill_system.create_template('rule_37',
    '[{"label": "Certified plat"}, {"label": "List of offset operators"}, {"label": "Notice of application served"}, {"label": '
    '"Waivers"}]', '[0, 1, 2]', '{spacing,density}');
SELECT version FROM skill_system.create_template('rule_32',
    '[{"label": "Form R-32"}, {"label": "Gas volumes by point of release"}, {"label": "Why no market"}]', '[0, 1]', '{flaring}');
SELECT version FROM skill_system.create_template('form_pr',
    '[{"label": "Oil and condensate by lease"}, {"label": "Gas by lease"}, {"label": "Dispositions balance"}]', '[0, 1, 2]', '{reporting}');
SELECT version FROM skill_system.create_template('flaring_monitor',
    '[{"label": "Satellite detections compared"}, {"label": "Meter readings"}]', '[1]', '{flaring}');

-- The matrix as imported from an older system: nearly everything is done, some is due, a little is late.
INSERT INTO skill_system.compliance_status (entity_id, entity_type, entity_name, entity_field, entity_district, compliance_domain,
    status, deadline)
SELECT e.entity_id, e.entity_type, e.entity_name, e.entity_field, e.entity_district, d.domain,
       CASE WHEN s.dice < 80 THEN 'compliant' WHEN s.dice < 88 THEN 'not_applicable' WHEN s.dice < 92 THEN 'in_review'
           ELSE 'action_needed' END,
       date_trunc('day', now()) + make_interval(days => texas.pick(e.i, d.domain || ' due', 400,
           :seed)::integer - CASE WHEN s.dice < 92 THEN 0 ELSE 60 END)
FROM texas.entities e CROSS JOIN unnest('{rule_37,rule_32,form_pr,flaring_monitor}'::text[]) AS d(domain)
CROSS JOIN LATERAL (SELECT texas.pick(e.i, d.domain, 100, :seed) AS dice) s
ON CONFLICT DO NOTHING;
ANALYZE skill_system.compliance_status;
