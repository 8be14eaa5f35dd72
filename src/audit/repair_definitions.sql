WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system')
SELECT format('index %s', c.oid::regclass), format('REINDEX INDEX %s', c.oid::regclass)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN space s ON c.relnamespace = s.oid
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
UNION ALL
SELECT format('%s logged', c.oid::regclass), format('ALTER TABLE %s SET LOGGED', c.oid::regclass)
FROM pg_class c JOIN space s ON c.relnamespace = s.oid WHERE c.relkind = 'r' AND c.relpersistence = 'u'
UNION ALL
SELECT format('owner of %s', c.oid::regclass), format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, pg_get_userbyid(e.extowner))
FROM pg_extension e, pg_class c JOIN space s ON c.relnamespace = s.oid
WHERE e.extname = 'skill_system' AND c.relkind IN ('r', 'p', 'v') AND c.relowner <> e.extowner
UNION ALL
SELECT format('owner of %s', p.oid::regprocedure), format('ALTER FUNCTION %s OWNER TO %I', p.oid::regprocedure,
    pg_get_userbyid(e.extowner))
FROM pg_extension e, pg_proc p JOIN space s ON p.pronamespace = s.oid WHERE e.extname = 'skill_system' AND p.proowner <> e.extowner
UNION ALL
SELECT 'owner of the schema', format('ALTER SCHEMA skill_system OWNER TO %I', pg_get_userbyid(e.extowner))
FROM pg_extension e, pg_namespace n WHERE e.extname = 'skill_system' AND n.nspname = 'skill_system' AND n.nspowner <> e.extowner
UNION ALL
SELECT format('trigger %s of %s enabled always', t.tgname, t.tgrelid::regclass),
    format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.tgrelid::regclass, t.tgname)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN space s ON c.relnamespace = s.oid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'A' AND c.relname LIKE 'audit\_%' AND p.pronamespace = s.oid
    AND p.proname IN ('sign_audit_row', 'refuse_change')
UNION ALL
SELECT format('trigger %s of %s enabled', t.tgname, t.tgrelid::regclass),
    format('ALTER TABLE %s ENABLE TRIGGER %I', t.tgrelid::regclass, t.tgname)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN space s ON c.relnamespace = s.oid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgenabled IN ('D', 'R') AND p.pronamespace = s.oid
    AND p.proname NOT IN ('sign_audit_row', 'refuse_change')
UNION ALL
SELECT 'event trigger ' || evtname, format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', evtname)
FROM pg_event_trigger WHERE evtname = 'skill_system_protect_children' AND evtenabled <> 'A'
