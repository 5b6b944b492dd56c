-- Every backend of an account ($1), or of them those that $2 names, if it names any: the transaction that it has in flight, read in
-- the same query that terminates it. The one-argument form returns at once; the caller repeats this
-- until no row is left. backend_xid has 32 bits; it is widened by its distance from the next xid.
-- What pg_stat_activity says of a thousand others would cost more than all the rest: only ours are asked for.
WITH ours AS MATERIALIZED (
  SELECT pg_stat_get_backend_pid(b) AS pid FROM pg_stat_get_backend_idset() b WHERE pg_stat_get_backend_userid(b) = $1::bigint::oid)
SELECT a.pid,
       coalesce((n.next + ((a.backend_xid::text::bigint - n.next + 2147483648) & 4294967295) - 2147483648)::text, ''),
       coalesce(host(a.client_addr) || ':' || a.client_port, 'local socket'),
       coalesce(a.state LIKE 'idle%', false),
       pg_terminate_backend(a.pid)
  FROM ours, pg_stat_get_activity(ours.pid) a,
       (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) n
 WHERE a.usesysid = $1::bigint::oid AND (cardinality($2::int[]) = 0 OR a.pid = ANY ($2::int[]))
