-- The trigger that each month needs.
SELECT format('trigger audit_logs_no_truncate of %s', relname), format('CREATE OR REPLACE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE
    ON skill_system.%1$I FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();
    ALTER TABLE skill_system.%1$I ENABLE ALWAYS TRIGGER audit_logs_no_truncate', relname)
FROM pg_class c
WHERE c.relnamespace = to_regnamespace('skill_system') AND c.relkind = 'r' AND c.relname ~ '^audit_logs_(default|\d{4,}_\d\d)$'
    AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'audit_logs_no_truncate'
        AND t.tgfoid = to_regprocedure('skill_system.refuse_change()'))
