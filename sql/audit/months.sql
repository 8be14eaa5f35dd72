-- Audit: the first months. After lockdown.sql, because of the rights on them; not a part of upgrade scripts.

-- Records go to the partition of their month from the first one on. For pg_dump, a month is the log's and not the extension's. A
-- restore, for which pg_dump switches row_security off, brings the months of the dump.
DO $$
DECLARE
    month date;
BEGIN
    IF pg_catalog.current_setting('row_security')::boolean THEN
        FOR month IN
            SELECT (pg_catalog.now() AT TIME ZONE 'UTC' + pg_catalog.make_interval(months => n))::date
            FROM pg_catalog.generate_series(0, 2) n
        LOOP
            EXECUTE pg_catalog.format('ALTER EXTENSION skill_system DROP TABLE %s', skill_system.create_audit_partition(month));
        END LOOP;
    END IF;
END
$$;
