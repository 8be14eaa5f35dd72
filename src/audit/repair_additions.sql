-- Triggers and rules that somebody put on audit tables; constraints and unique indexes on the months, which structure.tsv does not
-- have.
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system'),
audit_table AS (
    SELECT c.oid FROM pg_class c JOIN space s ON c.relnamespace = s.oid WHERE c.relkind IN ('r', 'p') AND c.relname LIKE 'audit\_%'),
month AS (SELECT c.oid FROM pg_class c JOIN space s ON c.relnamespace = s.oid WHERE c.relkind = 'r' AND c.relname ~ '^audit_logs_\d')
SELECT format('trigger %s of %s', t.tgname, t.tgrelid::regclass), format('DROP TRIGGER IF EXISTS %I ON %s', t.tgname, t.tgrelid::regclass)
FROM pg_trigger t JOIN audit_table a ON a.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgparentid = 0
    AND NOT (p.pronamespace = (SELECT oid FROM space) AND p.proname IN ('refuse_change', 'sign_audit_row'))
UNION ALL
SELECT format('rule %s of %s', r.rulename, r.ev_class::regclass), format('DROP RULE %I ON %s', r.rulename, r.ev_class::regclass)
FROM pg_rewrite r JOIN audit_table a ON a.oid = r.ev_class
UNION ALL
SELECT format('constraint %s of %s', t.conname, t.conrelid::regclass),
    format('ALTER TABLE %s DROP CONSTRAINT %I', t.conrelid::regclass, t.conname)
FROM pg_constraint t JOIN month m ON m.oid = t.conrelid WHERE t.contype IN ('c', 'f', 'u', 'x') AND t.coninhcount = 0
UNION ALL
SELECT format('unique index %s', i.indexrelid::regclass), format('DROP INDEX %s', i.indexrelid::regclass)
FROM pg_index i JOIN month m ON m.oid = i.indrelid
WHERE i.indisunique AND NOT EXISTS (SELECT FROM pg_constraint t WHERE t.conindid = i.indexrelid AND t.conrelid = i.indrelid)
    AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
