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
SELECT format('flags of %s', c.oid::regclass), format('UPDATE pg_catalog.pg_class SET relhastriggers = %L, relhasindex = %L,
    relhasrules = %L, relhassubclass = %L, relispartition = %L WHERE oid = %s', f.triggers, f.indexes, f.rules, f.children, f.child, c.oid)
FROM pg_class c JOIN space s ON c.relnamespace = s.oid CROSS JOIN LATERAL (SELECT
    c.relhastriggers OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid) AS triggers,
    c.relhasindex OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid) AS indexes,
    c.relhasrules OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid) AS rules,
    c.relhassubclass OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS children,
    c.relispartition OR c.relname LIKE 'audit\_logs\_%' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) AS child) f
WHERE c.relkind IN ('r', 'p', 'v') AND (c.relhastriggers, c.relhasindex, c.relhasrules, c.relhassubclass, c.relispartition)
    <> (f.triggers, f.indexes, f.rules, f.children, f.child)
UNION ALL
SELECT 'owner of event trigger ' || evtname, format('ALTER EVENT TRIGGER %I OWNER TO %I', evtname, pg_get_userbyid(e.extowner))
FROM pg_extension e, pg_event_trigger t WHERE e.extname = 'skill_system' AND t.evtname = 'skill_system_protect_children'
    AND t.evtowner <> e.extowner
UNION ALL
SELECT 'partitions of audit_logs', format('UPDATE pg_catalog.pg_partitioned_table SET partstrat = %L, partnatts = 1, partattrs = %L,
    partdefid = %s, partexprs = NULL WHERE partrelid = %s', 'r', a.attnum, d.oid, c.oid)
FROM space s JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = 'audit_logs' AND c.relkind = 'p'
JOIN pg_class d ON d.relnamespace = s.oid AND d.relname = 'audit_logs_default'
JOIN pg_inherits i ON i.inhrelid = d.oid AND i.inhparent = c.oid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'created_at'
JOIN pg_partitioned_table p ON p.partrelid = c.oid
WHERE (p.partstrat, p.partnatts, p.partattrs::text, p.partdefid) <> ('r', 1, a.attnum::text, d.oid) OR p.partexprs IS NOT NULL
UNION ALL
SELECT format('partition %s', c.relname), format('INSERT INTO pg_catalog.pg_inherits (inhrelid, inhparent, inhseqno, inhdetachpending)
    VALUES (%s, %s, 1, false)', c.oid, p.oid)
FROM space s JOIN pg_class c ON c.relnamespace = s.oid AND c.relispartition AND c.relname LIKE 'audit\_logs\_%'
JOIN pg_class p ON p.relnamespace = s.oid AND p.relname = 'audit_logs'
WHERE NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
