-- Help: where people and agents start. The list of tasks is a view too, as some clients only show relations. A function is in it
-- whose comment has "Task NUMBER: what somebody wants to do." before its example; the numbers are the order: 1 for agents, 20 for
-- reviewers, 30 for auditors, 40 for administrators.

CREATE VIEW skill_system.help WITH (security_invoker = true) AS
SELECT rtrim(t.parts[2], '.') COLLATE "default" AS task, t.parts[3] COLLATE "default" AS call
FROM pg_proc p
CROSS JOIN LATERAL regexp_match(obj_description(p.oid, 'pg_proc'), '\mTask (\d+): (.*?)\s+Example: (.*)$') AS t(parts)
WHERE p.pronamespace = 'skill_system'::regnamespace AND t.parts IS NOT NULL AND has_function_privilege(p.oid, 'EXECUTE')
ORDER BY t.parts[1]::integer;
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
