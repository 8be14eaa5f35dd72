SELECT format('skill_system.%I', name) FROM (
    SELECT relname AS name FROM pg_class
    WHERE relnamespace = 'skill_system'::regnamespace AND relkind IN ('r', 'p', 'f') AND relname LIKE 'audit\_%'
        AND oid = CASE $1 WHEN 'pg_class'::regclass THEN $2
                          WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = $2)
                          WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = $2)
                          WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = $2) END
    UNION ALL
    SELECT proname FROM pg_proc
    WHERE pronamespace = 'skill_system'::regnamespace AND oid = $2 AND $1 = 'pg_proc'::regclass) found
