-- Who is in as one of these accounts now. A parallel worker counts as its leader.
SELECT r.rolname, coalesce(a.leader_pid, a.pid), a.backend_start,
       extract(epoch FROM clock_timestamp() - a.backend_start)::float8,
       coalesce(host(a.client_addr) || ':' || a.client_port, 'local socket')
  FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
 WHERE r.rolname = ANY ($1::text[])
