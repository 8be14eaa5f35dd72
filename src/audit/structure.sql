-- What the extension consists of, as the catalogue has it now: kind, the object that it is a part of, name, state. The same on
-- every version of the server, and before and after dump and restore. structure.tsv is what a new database has.
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system'),
member AS (
    SELECT d.classid, d.objid FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    WHERE e.extname = 'skill_system'),
-- Months come and go: protection_problems.sql compares them with their parent.
relation AS (
    SELECT c.* FROM pg_class c JOIN space s ON c.relnamespace = s.oid WHERE c.relname !~ '^audit_logs_\d{4,}_\d\d'),
base AS (SELECT * FROM relation WHERE relkind IN ('r', 'p', 'v', 'c'))
SELECT 'member' AS kind, (i.object).type AS relation, (i.object).identity AS name, '' AS state
FROM (SELECT pg_identify_object(classid, objid, 0) AS object FROM member) i
UNION ALL
SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'row type' WHEN 'r' THEN 'table' WHEN 'p' THEN 'table'
        WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' END, '', relname,
    CASE relkind
        -- Before version 16, columns of a view of one table have its name before them, too.
        WHEN 'v' THEN 'definition ' || left(encode(sha256(convert_to(regexp_replace(pg_get_viewdef(oid),
            '\m[a-z_0-9]+\.|[\s()]+', '', 'g'), 'UTF8')), 'hex'), 32)
        WHEN 'S' THEN (SELECT format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %s',
            format_type(q.seqtypid, NULL), q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache,
            CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
            FROM pg_sequence q WHERE q.seqrelid = relation.oid)
        WHEN 'p' THEN 'partitioned' ELSE '' END
FROM relation WHERE relkind NOT IN ('i', 'I', 't')
UNION ALL
SELECT 'column', b.relname, a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), nullif(a.attidentity, ''),
    nullif(a.attgenerated, ''), (SELECT 'collation ' || l.collname FROM pg_collation l
        WHERE l.oid = a.attcollation AND l.collname <> 'default'))
FROM base b JOIN pg_attribute a ON a.attrelid = b.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'not null', b.relname, a.attname, '' FROM base b JOIN pg_attribute a ON a.attrelid = b.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE a.attnotnull
UNION ALL
SELECT 'default', b.relname, a.attname, pg_get_expr(d.adbin, d.adrelid) FROM base b JOIN pg_attrdef d ON d.adrelid = b.oid
JOIN pg_attribute a ON a.attrelid = b.oid AND a.attnum = d.adnum
UNION ALL
SELECT 'constraint', b.relname, k.conname, pg_get_constraintdef(k.oid) FROM base b JOIN pg_constraint k ON k.conrelid = b.oid
WHERE k.contype IN ('p', 'u', 'x', 'f', 'c') AND k.conparentid = 0
UNION ALL
SELECT CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END, b.relname, c.relname, pg_get_indexdef(c.oid)
FROM base b JOIN pg_index i ON i.indrelid = b.oid JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.conrelid = b.oid)
UNION ALL
SELECT 'trigger', b.relname, t.tgname, CASE t.tgenabled WHEN 'A' THEN 'ALWAYS ' WHEN 'O' THEN '' ELSE t.tgenabled::text || ' ' END
    || pg_get_triggerdef(t.oid)
FROM base b JOIN pg_trigger t ON t.tgrelid = b.oid WHERE NOT t.tgisinternal AND t.tgparentid = 0
UNION ALL
SELECT 'event trigger', '', e.evtname, concat_ws(' ', e.evtenabled, e.evtevent, p.proname, e.evttags::text)
FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN space s ON p.pronamespace = s.oid OR e.evtname LIKE 'skill\_system\_%'
UNION ALL
SELECT 'rule', b.relname, r.rulename, '' FROM base b JOIN pg_rewrite r ON r.ev_class = b.oid
WHERE NOT (b.relkind = 'v' AND r.rulename = '_RETURN')
UNION ALL
SELECT 'child', b.relname, i.inhrelid::regclass::text, '' FROM base b JOIN pg_inherits i ON i.inhparent = b.oid
WHERE i.inhrelid::regclass::text !~ '^skill_system\.audit_logs_\d{4,}_\d\d$'
UNION ALL
SELECT 'parent', b.relname, i.inhparent::regclass::text, '' FROM base b JOIN pg_inherits i ON i.inhrelid = b.oid
UNION ALL
SELECT 'type', '', t.typname, CASE t.typtype WHEN 'e' THEN (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
    FROM pg_enum e WHERE e.enumtypid = t.oid) ELSE t.typtype::text || ' ' || format_type(t.typbasetype, t.typtypmod) END
FROM pg_type t JOIN space s ON t.typnamespace = s.oid WHERE t.typtype NOT IN ('c', 'p', 'm') AND t.typelem = 0
UNION ALL
SELECT 'function', '', format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)),
    concat_ws(' ', pg_get_function_arguments(p.oid), '->', pg_get_function_result(p.oid), l.lanname, p.prokind, p.provolatile,
        p.proparallel,
        CASE WHEN p.proisstrict THEN 'strict' END, CASE WHEN p.prosecdef THEN 'security definer' END,
        CASE WHEN p.proleakproof THEN 'leakproof' END, p.proconfig::text,
        CASE l.lanname WHEN 'c' THEN p.prosrc || ' ' || p.probin ELSE left(encode(sha256(convert_to(regexp_replace(
            coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), '\m[a-z_0-9]+\.|[\s()]+', '', 'g'), 'UTF8')), 'hex'), 32) END)
FROM pg_proc p JOIN space s ON p.pronamespace = s.oid JOIN pg_language l ON l.oid = p.prolang
