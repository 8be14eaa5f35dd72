SELECT coalesce(
    (SELECT format('transaction %s of process %s in database %s, open since %s',
                   $1, a.pid, a.datname, date_trunc('second', a.xact_start))
     FROM pg_stat_activity a WHERE a.backend_xid::text::bigint = $1 % 4294967296),
    (SELECT format('prepared transaction %s (%s) in database %s since %s: COMMIT PREPARED or ROLLBACK PREPARED',
                   $1, p.gid, p.database, date_trunc('second', p.prepared))
     FROM pg_prepared_xacts p WHERE p.transaction::text::bigint = $1 % 4294967296),
    format('transaction %s', $1))
