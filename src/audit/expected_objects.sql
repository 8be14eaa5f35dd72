-- What structure.sql leaves out, because it holds for months, too, or is not a part of the definition.
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system')
SELECT format('view %s is not a security_invoker view', c.relname) FROM pg_class c, space s
WHERE c.relnamespace = s.oid AND c.relkind = 'v' AND NOT coalesce(c.reloptions @> ARRAY['security_invoker=true'], false)
UNION ALL
SELECT format('index %s is not valid', c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN space s
    ON c.relnamespace = s.oid WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
UNION ALL
SELECT format('table %s is not logged, so a crash empties it', c.relname) FROM pg_class c JOIN space s ON c.relnamespace = s.oid
WHERE c.relkind = 'r' AND c.relpersistence <> 'p'
UNION ALL
SELECT format('%s belongs to %s, and the extension to %s', c.oid::regclass, pg_get_userbyid(c.relowner), pg_get_userbyid(e.extowner))
FROM pg_extension e, pg_class c JOIN space s ON c.relnamespace = s.oid
WHERE e.extname = 'skill_system' AND c.relkind IN ('r', 'p', 'v', 'S') AND c.relowner <> e.extowner
UNION ALL
SELECT format('the %s of %s are hidden', f.what, c.relname)
FROM pg_class c JOIN space s ON c.relnamespace = s.oid CROSS JOIN LATERAL (VALUES
    (NOT c.relhastriggers AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid), 'triggers'),
    (NOT c.relhasrules AND EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid), 'rules'),
    (NOT c.relhasindex AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid), 'indexes')) AS f(wrong, what)
WHERE f.wrong
ORDER BY 1
