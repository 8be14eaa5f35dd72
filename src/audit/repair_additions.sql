-- Triggers and rules that somebody put on audit tables.
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system'),
audit_table AS (
    SELECT c.oid FROM pg_class c JOIN space s ON c.relnamespace = s.oid WHERE c.relkind IN ('r', 'p') AND c.relname LIKE 'audit\_%')
SELECT format('trigger %s of %s', t.tgname, t.tgrelid::regclass), format('DROP TRIGGER IF EXISTS %I ON %s', t.tgname, t.tgrelid::regclass)
FROM pg_trigger t JOIN audit_table a ON a.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgparentid = 0
    AND NOT (p.pronamespace = (SELECT oid FROM space) AND p.proname IN ('refuse_change', 'sign_audit_row'))
UNION ALL
SELECT format('rule %s of %s', r.rulename, r.ev_class::regclass), format('DROP RULE %I ON %s', r.rulename, r.ev_class::regclass)
FROM pg_rewrite r JOIN audit_table a ON a.oid = r.ev_class
