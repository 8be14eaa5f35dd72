WITH
space AS (SELECT oid, nspowner FROM pg_namespace WHERE nspname = 'skill_system'),
extension AS (SELECT oid, extowner FROM pg_extension WHERE extname = 'skill_system'),
shipped_function AS (SELECT * FROM jsonb_to_recordset($1) AS f(name text, language text, symbol text, pinned boolean, strict boolean)),
shipped_column AS (SELECT * FROM jsonb_to_recordset($2) AS c(relation text, name text, kind text, not_null boolean)),
log AS (SELECT to_regclass('skill_system.audit_logs')::oid AS oid),
audit_table AS (
    -- By name, and what was attached, whatever its name.
    SELECT c.*, EXISTS (SELECT FROM pg_inherits i, log WHERE i.inhrelid = c.oid AND i.inhparent = log.oid
        AND NOT i.inhdetachpending) AS attached
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p', 'f')
        AND (c.relnamespace = (SELECT oid FROM space) AND c.relname LIKE 'audit\_%'
             OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i, log WHERE i.inhparent = log.oid))),
audit_trigger AS (
    SELECT t.*, p.proname, p.pronamespace = (SELECT oid FROM space) AS ours, p.pronamespace = 'pg_catalog'::regnamespace AS system,
           t.tgqual IS NULL AND t.tgattr::text = '' AND t.tgnargs = 0 AS always
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid IN (SELECT oid FROM audit_table)),
-- 4, 5, 9: each table refuses changes, the log and its partitions also sign, and session_replication_role does not matter.
-- tgtype: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
wanted AS (
    SELECT * FROM (VALUES ('sign_audit_row', 1+2+4, 'signs new rows', true), ('refuse_change', 1+2+8+16, 'refuses UPDATE and DELETE',
        false),
                          ('refuse_change', 2+32, 'refuses TRUNCATE', false)) AS w(function, type, what, log_only)),
function AS (
    SELECT p.*, l.lanname, pg_get_userbyid(p.proowner) AS owner,
           p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS signature,
           EXISTS (SELECT FROM shipped_function s WHERE s.name = p.proname) AS known,
           EXISTS (SELECT FROM shipped_function s WHERE s.name = p.proname AND s.language = l.lanname AND s.strict = p.proisstrict
               AND NOT p.prosecdef
                       AND p.proconfig IS NOT DISTINCT FROM CASE WHEN s.pinned THEN ARRAY['search_path=pg_catalog, pg_temp'] END
                       AND CASE WHEN s.language = 'c' THEN p.probin = '$libdir/skill_system' AND p.prosrc = s.symbol
                           ELSE p.probin IS NULL END) AS same
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = (SELECT oid FROM space))

SELECT a.oid, format('no ENABLE ALWAYS trigger %s', w.what) FROM audit_table a, wanted w
WHERE (NOT w.log_only OR a.attached OR a.oid = (SELECT oid FROM log))
    AND NOT EXISTS (SELECT FROM audit_trigger t WHERE t.tgrelid = a.oid AND t.ours AND t.proname = w.function AND t.tgtype = w.type
        AND t.always AND t.tgenabled = 'A')
-- 12: another trigger may change a row after it was signed, or swallow it.
UNION ALL
SELECT t.tgrelid, format('trigger %s, which calls %s, does not belong here', t.tgname, t.tgfoid::regprocedure) FROM audit_trigger t
WHERE NOT (t.ours AND t.proname = 'refuse_change' OR t.ours AND t.proname = 'sign_audit_row' AND t.tgtype = 1+2+4
           OR t.tgisinternal AND t.system AND t.proname LIKE 'RI\_FKey\_%')
-- 11: a rule may swallow new rows.
UNION ALL
SELECT a.oid, format('rule %s does not belong here', r.rulename) FROM audit_table a JOIN pg_rewrite r ON r.ev_class = a.oid
-- 7, 10: columns added, dropped, renamed, of another type, nullable; a table that does not exist, or created by somebody else.
UNION ALL
SELECT NULL, format('table %s is missing', s.relation) FROM (SELECT DISTINCT relation FROM shipped_column) s
WHERE NOT EXISTS (SELECT FROM audit_table a WHERE a.relname = s.relation AND a.relnamespace = (SELECT oid FROM space))
UNION ALL
SELECT a.oid, 'the extension ships no such table' FROM audit_table a
WHERE NOT a.attached AND a.relname NOT IN (SELECT relation FROM shipped_column) AND a.relname NOT LIKE 'audit\_logs\_%'
UNION ALL
SELECT a.oid, 'not an ordinary table' FROM audit_table a WHERE a.relkind <> CASE WHEN a.oid = (SELECT oid FROM log) THEN 'p' ELSE 'r' END
UNION ALL
SELECT x.oid, CASE WHEN x.kind IS NULL THEN format('column %s does not belong here', x.attname) WHEN x.attname IS NULL
    THEN format('column %s is missing', x.name)
                   WHEN x.kind <> x.actual THEN format('column %s is of type %s, not %s', x.name, x.actual, x.kind)
                       ELSE format('column %s may be NULL', x.name) END
FROM (SELECT coalesce(a.oid, w.oid) AS oid, w.name, w.kind, w.not_null, a.attname, a.attnotnull, a.actual
      FROM (SELECT t.oid, s.* FROM audit_table t JOIN shipped_column s ON s.relation = CASE WHEN t.attached THEN 'audit_logs'
          ELSE t.relname END) w
      FULL JOIN (SELECT t.oid, a.attname, a.attnotnull, format_type(a.atttypid, a.atttypmod) AS actual FROM audit_table t
          JOIN pg_attribute a ON a.attrelid = t.oid
                 WHERE a.attnum > 0 AND NOT a.attisdropped AND (t.attached OR t.relname IN (SELECT relation FROM shipped_column))) a
          ON a.oid = w.oid AND a.attname = w.name) x
WHERE x.kind IS NULL OR x.attname IS NULL OR x.kind <> x.actual OR x.not_null AND NOT x.attnotnull
-- Without such a flag the server does not look into the catalogue that has the triggers, the indexes or the partitions.
UNION ALL
SELECT a.oid, f.problem FROM audit_table a CROSS JOIN LATERAL (VALUES
    (NOT a.relhastriggers AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = a.oid), 'its triggers are hidden'),
    (NOT a.relhasindex AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.oid), 'its indexes are hidden'),
    (NOT a.relhassubclass AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = a.oid), 'its partitions are hidden'),
    (NOT a.relispartition AND a.attached, 'it is a partition and does not state it')) AS f(wrong, problem)
WHERE f.wrong
UNION ALL
SELECT log.oid, 'it is not partitioned by RANGE (created_at), with audit_logs_default' FROM log
WHERE log.oid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_partitioned_table p
    JOIN pg_attribute b ON b.attrelid = p.partrelid AND p.partattrs::text = b.attnum::text AND b.attname = 'created_at'
    WHERE p.partrelid = log.oid AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partexprs IS NULL
        AND p.partdefid = to_regclass('skill_system.audit_logs_default'))
-- 8: a crash empties an unlogged table; records in a detached partition are out of sight, and foreign children lend false ones.
UNION ALL
SELECT a.oid, 'it is not logged, so a crash empties it' FROM audit_table a WHERE a.relpersistence <> 'p'
UNION ALL
SELECT a.oid, 'it is detached from audit_logs, so its records are out of sight' FROM audit_table a
WHERE a.relnamespace = (SELECT oid FROM space) AND a.relname LIKE 'audit\_logs\_%' AND NOT a.attached
UNION ALL
SELECT a.oid, 'it is not a partition of this extension' FROM audit_table a
WHERE a.attached AND (a.relnamespace <> (SELECT oid FROM space) OR a.relname !~ '^audit_logs_(default|\d{4,}_\d\d)$')
UNION ALL
SELECT a.oid, format('it does not hold the records of its month, but those %s', pg_get_expr(a.relpartbound, a.oid))
FROM audit_table a CROSS JOIN LATERAL (SELECT to_date(substring(a.relname FROM '\d+_\d\d$'), 'YYYY_MM')::timestamp AS start) m
WHERE a.attached AND a.relname ~ '^audit_logs_\d{4,6}_(0[1-9]|1[0-2])$' AND pg_get_expr(a.relpartbound, a.oid)
    <> format('FOR VALUES FROM (%L) TO (%L)', m.start AT TIME ZONE 'UTC', (m.start + interval '1 month') AT TIME ZONE 'UTC')
-- What refuses a record, or runs code for it.
UNION ALL
SELECT a.oid, format('constraint %s does not belong here', t.conname) FROM audit_table a JOIN pg_constraint t ON t.conrelid = a.oid
WHERE a.relname ~ '^audit_logs_\d' AND t.contype IN ('c', 'f', 'u', 'x')
UNION ALL
SELECT a.oid, format('unique index %s does not belong here', i.indexrelid::regclass)
FROM audit_table a JOIN pg_index i ON i.indrelid = a.oid
WHERE a.relname ~ '^audit_logs_\d' AND i.indisunique AND NOT i.indisprimary
    AND NOT EXISTS (SELECT FROM pg_constraint t WHERE t.conindid = i.indexrelid AND t.conrelid = a.oid)
UNION ALL
SELECT log.oid, 'it has no default partition, so records may find no place' FROM log
WHERE log.oid IS NOT NULL AND NOT EXISTS (SELECT FROM audit_table a WHERE a.attached AND pg_get_expr(a.relpartbound, a.oid) = 'DEFAULT')
UNION ALL
SELECT i.inhparent, format('table %s is its child', i.inhrelid::regclass) FROM pg_inherits i JOIN audit_table a ON a.oid = i.inhparent
    WHERE i.inhparent <> (SELECT oid FROM log)
UNION ALL
SELECT i.inhrelid, format('it is a child of %s', i.inhparent::regclass) FROM pg_inherits i JOIN audit_table a ON a.oid = i.inhrelid
    WHERE i.inhparent <> (SELECT oid FROM log)
-- 21: an index that is not valid is not used by the planner, or is used without being complete.
UNION ALL
SELECT a.oid, format('index %s is not valid', i.indexrelid::regclass) FROM audit_table a JOIN pg_index i ON i.indrelid = a.oid
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
UNION ALL
SELECT a.oid, 'it has no primary key' FROM audit_table a
WHERE a.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.oid AND i.indisprimary AND i.indisunique
    AND i.indimmediate)
-- 34: row security off shows tenants each other's rows; forced, restrictive or without the
-- auditors' policy it hides rows from those who verify; an expression in a policy runs with the rights of those who read.
UNION ALL
SELECT a.oid, 'row security is off' FROM audit_table a WHERE a.relkind IN ('r', 'p') AND NOT a.relrowsecurity
UNION ALL
SELECT a.oid, 'row security is forced on its owner' FROM audit_table a WHERE a.relforcerowsecurity
UNION ALL
SELECT a.oid, format('policy %s does not belong here', p.polname) FROM audit_table a JOIN pg_policy p ON p.polrelid = a.oid
WHERE NOT p.polpermissive
    OR NOT (p.polname = 'auditor' AND p.polcmd = 'r' AND pg_get_expr(p.polqual, p.polrelid) = 'true'
            OR (a.oid = (SELECT oid FROM log) OR a.relname = 'audit_kept') AND p.polname = 'tenant' AND p.polcmd = 'r'
            OR a.oid = (SELECT oid FROM log) AND p.polname = 'append' AND p.polcmd = 'a' AND pg_get_expr(p.polwithcheck,
                p.polrelid) = 'true')
UNION ALL
SELECT a.oid, 'no policy shows all its rows to auditors' FROM audit_table a
WHERE a.relkind IN ('r', 'p') AND a.relrowsecurity
    AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = a.oid AND p.polpermissive AND p.polcmd IN ('r', '*')
                        AND to_regrole('skill_system_auditor')::oid = ANY (p.polroles) AND pg_get_expr(p.polqual, p.polrelid) = 'true')
-- 10, 33: the owner of a part can change it.
UNION ALL
SELECT a.oid, format('it belongs to %s, and the extension to %s', pg_get_userbyid(a.relowner), pg_get_userbyid(e.extowner))
    FROM audit_table a, extension e WHERE a.relowner <> e.extowner
UNION ALL
SELECT NULL, format('schema skill_system belongs to %s, and the extension to %s', pg_get_userbyid(s.nspowner),
    pg_get_userbyid(e.extowner)) FROM space s, extension e WHERE s.nspowner <> e.extowner
UNION ALL
SELECT NULL, format('function %s belongs to %s, and the extension to %s', f.signature, f.owner, pg_get_userbyid(e.extowner))
    FROM function f, extension e WHERE f.proowner <> e.extowner
-- 29, 32: functions replaced, altered, dropped, out of the extension, or put next to the extension's.
UNION ALL
SELECT NULL, format('function %s is not as the extension ships it', f.signature) FROM function f WHERE f.known AND NOT f.same
UNION ALL
SELECT NULL, format('function %s was not installed by the extension', f.signature) FROM function f WHERE NOT f.known
UNION ALL
SELECT NULL, format('function %s: expected %s definitions, found %s', s.name, s.wanted, s.actual)
FROM (SELECT name, count(*) AS wanted, (SELECT count(*) FROM function f WHERE f.proname = name) AS actual
    FROM shipped_function GROUP BY name) s WHERE s.actual <> s.wanted
UNION ALL
SELECT NULL, format('function %s does not belong to the extension any more', f.signature) FROM function f, extension e
WHERE f.known AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid
    AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e')
-- 30: without it, partitions and children that are created later stay without triggers.
UNION ALL
SELECT NULL, 'event trigger skill_system_protect_children is missing, disabled or changed'
WHERE NOT EXISTS (SELECT FROM pg_event_trigger t JOIN function f ON f.oid = t.evtfoid
    WHERE t.evtname = 'skill_system_protect_children' AND t.evtevent = 'ddl_command_end' AND t.evtenabled = 'A'
        AND f.proname = 'protect_children'
        AND t.evtowner = (SELECT extowner FROM extension))
UNION ALL
SELECT NULL, 'the extension does not exist' WHERE NOT EXISTS (SELECT FROM extension)
ORDER BY 1 NULLS LAST, 2
