-- Connections that are being opened at this moment, and whether they are past the check that their role
-- can log in. Such a one may have passed it before the lock was committed, and is not in
-- pg_stat_activity under its name yet; but it is inside a transaction, and so holds a virtual
-- transaction id; and right after that check it locks its database.
WITH named AS MATERIALIZED (
  SELECT pg_stat_get_backend_pid(b) AS pid FROM pg_stat_get_backend_idset() b WHERE pg_stat_get_backend_userid(b) <> 0)
SELECT l.pid,
       l.virtualtransaction,
       EXISTS (SELECT FROM pg_locks d
                WHERE d.pid = l.pid AND d.virtualtransaction = l.virtualtransaction
                  AND d.locktype = 'object' AND d.classid = 'pg_database'::regclass AND d.granted)
  FROM pg_locks l
 WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.pid IS NOT NULL
   AND NOT EXISTS (SELECT FROM named WHERE named.pid = l.pid)
   AND NOT EXISTS (SELECT FROM pg_stat_get_activity(l.pid) a
                    WHERE a.usesysid IS NOT NULL OR a.backend_type <> 'client backend')
