-- The server and the broker's own role.
SELECT current_setting('server_version_num')::int,
       pg_is_in_recovery(),
       r.rolname, r.rolsuper, r.rolcreaterole,
       ARRAY(SELECT v.name FROM (VALUES ('CREATEDB', r.rolcreatedb), ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) v (name, has) WHERE v.has),
       pg_has_role(r.oid, 'pg_signal_backend', 'USAGE'),
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'),
       current_setting('max_prepared_transactions')::int,
       inet_server_addr() IS NULL OR inet_server_addr() << '127.0.0.0/8' OR inet_server_addr() = '::1'
         OR coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
       clock_timestamp()
  FROM pg_roles r WHERE r.rolname = current_user
