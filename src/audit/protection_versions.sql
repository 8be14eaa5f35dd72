WITH space AS MATERIALIZED (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system'),
-- As LIKE 'audit\_%', for the index.
named AS MATERIALIZED (SELECT oid, relkind, ctid, xmin FROM pg_class WHERE relname >= 'audit_' AND relname < 'audit`'
    AND relnamespace = (SELECT oid FROM space)),
audit_table AS MATERIALIZED (
    SELECT oid FROM named WHERE relkind IN ('r', 'p', 'f')
    UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('skill_system.audit_logs'))
SELECT md5(string_agg(int4send(n) || v, '')) FROM (
    SELECT 1 AS n, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) AS v FROM pg_namespace WHERE oid = (SELECT oid FROM space)
    UNION ALL SELECT 2, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_extension WHERE extname = 'skill_system'
    UNION ALL SELECT 3, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM named
    UNION ALL SELECT 4, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent IN (SELECT oid FROM audit_table)
    UNION ALL SELECT 5, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a
        JOIN pg_attribute c ON c.attrelid = a.oid AND c.attnum > 0
    UNION ALL SELECT 6, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a
        JOIN pg_attrdef c ON c.adrelid = a.oid
    UNION ALL SELECT 7, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a
        JOIN pg_trigger c ON c.tgrelid = a.oid
    UNION ALL SELECT 8, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a
        JOIN pg_rewrite c ON c.ev_class = a.oid
    UNION ALL SELECT 9, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a
        JOIN pg_policy c ON c.polrelid = a.oid
    UNION ALL SELECT 10, string_agg(tidsend(c.ctid) || xidsend(c.xmin) || tidsend(x.ctid) || xidsend(x.xmin), '' ORDER BY c.ctid)
              FROM audit_table a JOIN pg_index c ON c.indrelid = a.oid JOIN pg_class x ON x.oid = c.indexrelid
    UNION ALL SELECT 11, string_agg(tidsend(c.ctid) || xidsend(c.xmin), '' ORDER BY c.ctid) FROM audit_table a
        JOIN pg_constraint c ON c.conrelid = a.oid
    UNION ALL SELECT 12, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_inherits
              WHERE inhrelid IN (SELECT oid FROM audit_table) OR inhparent IN (SELECT oid FROM audit_table)
    UNION ALL SELECT 13, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_proc WHERE pronamespace = (SELECT oid
        FROM space)
    UNION ALL SELECT 14, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_depend
              WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'skill_system')
                  AND deptype = 'e'
    UNION ALL SELECT 15, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_db_role_setting
    UNION ALL SELECT 16, string_agg(tidsend(ctid) || xidsend(xmin), '' ORDER BY ctid) FROM pg_event_trigger
              WHERE evtname = 'skill_system_protect_children'
) AS versions
