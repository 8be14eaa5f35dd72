-- Help: where people and agents start. The list of tasks is a view too, as some clients only show relations.

CREATE VIEW skill_system.help WITH (security_invoker = true) AS
SELECT t.task, t.call
FROM (VALUES
    (1, 'check_policy', 'May I do this?', 'SELECT * FROM skill_system.check_policy(''dev'', ''{fs.read:/srv/app}''::text[]);'),
    (2, 'enforce_policy', 'The same as a barrier: an error unless allowed',
        'SELECT * FROM skill_system.enforce_policy(''dev'', ''{db.write}''::text[]);'),
    (3, 'explain_policy', 'Which rule decides?', 'SELECT * FROM skill_system.explain_policy(''dev'', ''{net.fetch:example.org}'');'),
    (4, 'search_skills', 'Find a skill', 'SELECT * FROM skill_system.search_skills(''fill in forms'');'),
    (5, 'load_skill', 'Read a skill', 'SELECT body FROM skill_system.load_skill(''pdf-forms'', policy_name => ''dev'');'),
    (6, 'register_skill', 'Offer a skill, as a draft', 'SELECT * FROM skill_system.register_skill(''<SKILL.md>'');'),
    (7, 'log_run', 'Log what is done', 'SELECT skill_system.log_run(''pdf-forms'', ''fill'', ''succeeded'', 1250);'),
    (8, 'start_run', 'Log longer work; then log_step(), finish_run()',
        'SELECT skill_system.start_run(''file W-1'', ''my-agent'', ''dev'');'),
    (9, 'append_audit', 'Record what must be provable',
        'SELECT skill_system.append_audit(''form.sent'', ''{"form": "W-1"}'', ''my-agent'', ''agent'');'),
    (10, 'create_checklist', 'Begin a filing', 'SELECT * FROM skill_system.create_checklist(''42-501-20130'', ''well'', ''rule_37'');'),
    (11, 'missing_items', 'What does a filing lack?', 'SELECT * FROM skill_system.missing_items(''<checklist_id>'');'),
    (12, 'submit_checklist', 'Submit a filing for review', 'SELECT * FROM skill_system.submit_checklist(''<checklist_id>'');'),
    (13, 'propose_rule', 'Propose a rule',
        'SELECT * FROM skill_system.propose_rule(''SWR_37'', ''spacing'', ''2027-01-01'', ''{"feet": 467}'', ''manual'');'),
    (20, 'set_skill_status', 'Approve a skill', 'SELECT * FROM skill_system.set_skill_status(''pdf-forms'', ''approved'', ''<version>'');'),
    (21, 'review_checklist', 'Decide about a filing',
        'SELECT * FROM skill_system.review_checklist(''<checklist_id>'', ''approved'', expected_version => 2);'),
    (22, 'review_rule', 'Decide about a rule', 'SELECT * FROM skill_system.review_rule(''<rule_version_id>'', ''approved'');'),
    (30, 'verify_audit', 'Is the record intact? No row means yes', 'SELECT * FROM skill_system.verify_audit();'),
    (31, 'seal_audit', 'Seal what is recorded', 'SELECT * FROM skill_system.seal_audit();'),
    (32, 'audit_checkpoint', 'A signed checkpoint, to keep elsewhere', 'SELECT skill_system.audit_checkpoint();'),
    (33, 'health', 'Is the server in order?', 'SELECT * FROM skill_system.health() WHERE status <> ''ok'';'),
    (34, 'compliance_report', 'What is due, as a web page', 'SELECT skill_system.compliance_report(''html'');'),
    (40, 'create_policy', 'Create a policy', 'SELECT skill_system.create_policy(''mine'', allow => ''{db.read}'', ask => ''{db.write}'');'),
    (41, 'publish_rule', 'Publish a rule',
        'SELECT * FROM skill_system.publish_rule(''SWR_37'', ''spacing'', ''2027-01-01'', ''{"feet": 467}'', ''manual'');'),
    (42, 'audit_table', 'Record each change of a table', 'SELECT skill_system.audit_table(''public.wells'');'),
    (43, 'maintain', 'Do what is due', 'SELECT * FROM skill_system.maintain();')
) AS t(place, function, task, call)
WHERE EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'skill_system'::regnamespace AND p.proname = t.function
    AND has_function_privilege(p.oid, 'EXECUTE'))
ORDER BY t.place;
COMMENT ON VIEW skill_system.help IS
'Start here: what the caller may do, one call for each task. More about one: SELECT * FROM skill_system.help(''log_run'');';
COMMENT ON COLUMN skill_system.help.task IS 'What somebody wants to do.';
COMMENT ON COLUMN skill_system.help.call IS 'The call. What stands in <> is to be filled in.';

CREATE FUNCTION skill_system.help(topic text DEFAULT NULL) RETURNS TABLE (task text, call text)
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH wanted AS (
        SELECT btrim(regexp_replace(lower(left(topic, 200)), '^\s*skill_system\.|\(.*$', '', 'g')) AS name
    ), object AS (
        SELECT p.proname AS name, obj_description(p.oid, 'pg_proc') AS comment,
               format('%s(%s)', p.oid::regproc, pg_get_function_arguments(p.oid)) AS whole,
               format('%s(%s)', p.oid::regproc, pg_get_function_identity_arguments(p.oid)) AS short
        FROM pg_proc p
        WHERE p.pronamespace = 'skill_system'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
            AND has_function_privilege(p.oid, 'EXECUTE')
        UNION ALL
        SELECT c.relname, obj_description(c.oid, 'pg_class'), relation.call, relation.call
        FROM pg_class c CROSS JOIN LATERAL format('SELECT * FROM %s;', c.oid::regclass) AS relation(call)
        WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
            AND has_any_column_privilege(c.oid, 'SELECT')
    ), found AS (
        SELECT o.*, o.name = w.name AS is_it, position(w.name IN o.name) > 0 AS is_named, bool_or(o.name = w.name) OVER () AS exists
        FROM wanted w, object o
        WHERE w.name <> '' AND NOT EXISTS (
            SELECT FROM string_to_table(w.name, ' ') word WHERE position(word IN lower(o.name || ' ' || o.comment)) = 0)
    )
    SELECT h.task, h.call FROM skill_system.help h WHERE topic IS NULL
    UNION ALL
    (SELECT CASE WHEN f.is_it THEN f.comment ELSE split_part(f.comment, E'\n', 1) END, CASE WHEN f.is_it THEN f.whole ELSE f.short END
     FROM found f WHERE f.is_it OR NOT f.exists ORDER BY f.is_named DESC, f.name, f.short LIMIT 10);
END;
COMMENT ON FUNCTION skill_system.help(text) IS
'What the caller may do: one call for each task, as the view help shows it. A topic that is the name of a function, table or view shows '
'its whole comment; other words show what has all of them in its name or comment, ten at most. No row: nothing of it is granted to the '
'caller. '
'Example: SELECT * FROM skill_system.help(''filing'');';

GRANT SELECT ON skill_system.help TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT EXECUTE ON FUNCTION skill_system.help(text)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
