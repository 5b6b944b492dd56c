-- Connections that are being opened at this moment. Such a one may have passed the check that its role
-- can log in before the lock was committed, and is not in pg_stat_activity under its name yet; but it
-- is inside a transaction, and so holds a virtual transaction id.
SELECT l.pid::text || ' ' || l.virtualtransaction
  FROM pg_locks l
 WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.pid IS NOT NULL
   AND NOT EXISTS (SELECT FROM pg_stat_activity a
                    WHERE a.pid = l.pid AND (a.usesysid IS NOT NULL OR a.backend_type <> 'client backend'))
