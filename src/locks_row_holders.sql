SELECT DISTINCT coalesce(l.pid, 0)
FROM locked t
     CROSS JOIN LATERAL (
         SELECT t.xmax AS xid
         UNION ALL
         -- A number between the oldest and the next one is perhaps that of several transactions.
         SELECT (pg_get_multixact_members(t.xmax)).xid
         WHERE mxid_age(t.xmax) BETWEEN 1 AND (SELECT mxid_age(c.relminmxid) FROM pg_class c WHERE c.oid = t.tableoid)
     ) m
     JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = m.xid AND l.granted
WHERE l.pid IS DISTINCT FROM pg_backend_pid()
