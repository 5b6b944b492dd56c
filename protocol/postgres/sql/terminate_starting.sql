-- One connection ($1 its pid, $2 its virtual transaction id) that takes far too long to open.
SELECT pg_terminate_backend(l.pid)
  FROM pg_locks l
 WHERE l.locktype = 'virtualxid' AND l.pid = $1::int AND l.virtualtransaction = $2
   AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)
