-- Who holds the lock on $1 (table), $2 and $3 (object), as `holder`; a prepared transaction has no process.
WITH holder AS (
    SELECT DISTINCT l.pid, a.usesysid, a.usename, a.xact_start
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'object' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid = $1 AND l.objid::bigint = $2 AND l.objsubid = $3 AND l.granted
)
