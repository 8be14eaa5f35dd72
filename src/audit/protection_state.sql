WITH space AS (SELECT * FROM pg_namespace WHERE nspname = 'skill_system'),
member AS (
    SELECT d.classid, d.objid FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        AND d.deptype = 'e'
    WHERE e.extname = 'skill_system'),
audit_table AS (
    SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f')
        AND (c.relnamespace = (SELECT oid FROM space) AND c.relname LIKE 'audit\_%'
             OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('skill_system.audit_logs'))))
SELECT 'extension', format('version %s, owner %s', extversion, pg_get_userbyid(extowner)) FROM pg_extension WHERE extname = 'skill_system'
UNION ALL
SELECT 'schema', format('owner %s, rights %s', pg_get_userbyid(nspowner), (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C")
    FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) r)) FROM space
UNION ALL
SELECT 'table ' || a.name,
       format('%skind %s, persistence %s, owner %s, row security %s%s, options %s, rights %s, child of %s %s',
              CASE WHEN ('pg_class'::regclass, a.oid) IN (SELECT * FROM member) THEN 'member, ' END, a.relkind, a.relpersistence,
                  pg_get_userbyid(a.relowner),
              a.relrowsecurity, CASE WHEN a.relforcerowsecurity THEN ' forced' END, a.reloptions,
              (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C") FROM unnest(coalesce(a.relacl, acldefault('r',
                  a.relowner))) r),
              (SELECT string_agg(i.inhparent::regclass || CASE WHEN i.inhdetachpending THEN ' (leaving)' ELSE '' END, ', '
                  ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = a.oid),
              pg_get_expr(a.relpartbound, a.oid))
FROM audit_table a
UNION ALL
SELECT 'columns ' || a.name,
       (SELECT string_agg(format('%s %s%s%s%s', b.attname, format_type(b.atttypid, b.atttypmod), CASE WHEN b.attnotnull THEN ' not null'
           END, ' default ' || pg_get_expr(d.adbin, d.adrelid),
                                 ' rights ' || (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C") FROM unnest(b.attacl) r)),
                                     ', ' ORDER BY b.attnum)
        FROM pg_attribute b LEFT JOIN pg_attrdef d ON d.adrelid = b.attrelid AND d.adnum = b.attnum WHERE b.attrelid = a.oid
            AND b.attnum > 0 AND NOT b.attisdropped)
FROM audit_table a
UNION ALL
SELECT format('trigger %s.%I', a.name, t.tgname), format('%s %s', t.tgenabled, pg_get_triggerdef(t.oid)) FROM audit_table a
    JOIN pg_trigger t ON t.tgrelid = a.oid WHERE NOT t.tgisinternal
UNION ALL
-- Their names hold oids.
SELECT 'internal triggers ' || a.name, string_agg(format('%s %s %s', t.tgenabled, t.tgtype, t.tgfoid::regproc), ', '
    ORDER BY t.tgfoid::regproc::text COLLATE "C", t.tgtype, t.tgenabled)
FROM audit_table a JOIN pg_trigger t ON t.tgrelid = a.oid WHERE t.tgisinternal GROUP BY a.name
UNION ALL
SELECT format('event trigger %I', evtname), format('%s %s %s %s', evtenabled, evtevent, evtfoid::regprocedure, evttags)
    FROM pg_event_trigger WHERE evtname = 'skill_system_protect_children'
UNION ALL
SELECT format('rule %s.%I', a.name, r.rulename), format('%s %s', r.ev_enabled, pg_get_ruledef(r.oid)) FROM audit_table a
    JOIN pg_rewrite r ON r.ev_class = a.oid
UNION ALL
SELECT format('policy %s.%I', a.name, p.polname),
       format('%s, %s, to %s, using %s, check %s', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, p.polcmd,
              (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_get_userbyid(r) END, ' ' ORDER BY pg_get_userbyid(r) COLLATE "C")
                  FROM unnest(p.polroles) r),
              pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
FROM audit_table a JOIN pg_policy p ON p.polrelid = a.oid
UNION ALL
SELECT 'index ' || i.indexrelid::regclass, format('%s%s', pg_get_indexdef(i.indexrelid), CASE WHEN NOT (i.indisvalid AND i.indisready
    AND i.indislive) THEN ' not valid' END)
FROM audit_table a JOIN pg_index i ON i.indrelid = a.oid
UNION ALL
SELECT format('constraint %s.%I', a.name, k.conname), format('%s%s', pg_get_constraintdef(k.oid), CASE WHEN NOT k.convalidated
    THEN ' not valid' END)
FROM audit_table a JOIN pg_constraint k ON k.conrelid = a.oid WHERE k.contype <> 'n'
UNION ALL
SELECT 'children ' || a.name, string_agg(i.inhrelid::regclass::text, ', ' ORDER BY i.inhrelid::regclass::text COLLATE "C")
    FROM audit_table a JOIN pg_inherits i ON i.inhparent = a.oid GROUP BY a.name
UNION ALL
SELECT 'function ' || p.oid::regprocedure,
       format('%sowner %s, rights %s, %s, definition %s', CASE WHEN ('pg_proc'::regclass, p.oid) IN (SELECT * FROM member)
           THEN 'member, ' END, pg_get_userbyid(p.proowner),
              (SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE "C") FROM unnest(coalesce(p.proacl, acldefault('f',
                  p.proowner))) r),
              CASE WHEN p.probin IS NULL THEN l.lanname ELSE format('%s %s %s', l.lanname, p.probin, p.prosrc) END,
              CASE WHEN p.prokind IN ('f', 'p') THEN left(encode(sha256(convert_to(pg_get_functiondef(p.oid), 'UTF8')), 'hex'), 32)
                  ELSE p.prokind::text END)
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = (SELECT oid FROM space)
UNION ALL
SELECT format('setting of %s in %s', coalesce(quote_ident(r.rolname), 'everybody'), CASE WHEN c.setdatabase = 0 THEN 'every database'
    ELSE 'this database' END), s.value
FROM pg_db_role_setting c LEFT JOIN pg_roles r ON r.oid = c.setrole, unnest(c.setconfig) AS s(value)
WHERE s.value LIKE 'skill\_system.allow\_unprotected=%' AND c.setdatabase IN (0, (SELECT oid FROM pg_database
    WHERE datname = current_database()))
