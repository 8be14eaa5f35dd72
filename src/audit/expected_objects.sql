WITH wanted AS (SELECT w ->> 0 AS kind, w ->> 1 AS name FROM jsonb_array_elements($1) w),
space AS (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system'),
extension AS (SELECT oid FROM pg_extension WHERE extname = 'skill_system'),
problem(what) AS (
    SELECT format('%s %s is missing', w.kind, w.name) FROM wanted w
    WHERE NOT EXISTS (SELECT FROM pg_class c, space s WHERE c.relnamespace = s.oid AND c.relname = w.name)
    UNION ALL
    SELECT format('%s belongs to the extension under a name that it does not ship', c.oid::regclass)
    FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM extension)
    WHERE c.relkind IN ('r', 'p', 'v') AND c.relname NOT IN (SELECT name FROM wanted)
    UNION ALL
    SELECT format('view %s is not a security_invoker view', c.relname) FROM pg_class c, space s
    WHERE c.relnamespace = s.oid AND c.relkind = 'v' AND NOT coalesce(c.reloptions @> ARRAY['security_invoker=true'], false)
    UNION ALL
    SELECT format('index %s is not valid', c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN space s
        ON c.relnamespace = s.oid WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
    UNION ALL
    SELECT format('trigger %s of %s is switched off', t.tgname, t.tgrelid::regclass) FROM pg_trigger t JOIN pg_class c
        ON c.oid = t.tgrelid JOIN space s ON c.relnamespace = s.oid WHERE NOT t.tgisinternal AND t.tgenabled IN ('D', 'R')
    UNION ALL
    SELECT format('%s belongs to %s, and the extension to %s', c.oid::regclass, pg_get_userbyid(c.relowner), pg_get_userbyid(e.extowner))
    FROM pg_extension e, pg_class c JOIN space s ON c.relnamespace = s.oid
    WHERE e.extname = 'skill_system' AND c.relkind IN ('r', 'p', 'v', 'S') AND c.relowner <> e.extowner)
SELECT string_agg(what, '; ' ORDER BY what) FROM problem
