-- Owners of protected partitioned tables that may not use the functions of the triggers which each new partition gets.
SELECT DISTINCT format('EXECUTE on skill_system.%s() for %s, who owns a protected table', p.proname, r.rolname),
    format('GRANT EXECUTE ON FUNCTION skill_system.%I() TO %I', p.proname, r.rolname)
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid AND c.relkind = 'p'
JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = to_regnamespace('skill_system')
JOIN pg_roles r ON r.oid = c.relowner
WHERE p.proname IN ('capture_change', 'refuse_change') AND c.relnamespace <> p.pronamespace
    AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
ORDER BY 1
