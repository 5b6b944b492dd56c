-- The groups that people's accounts join, and curfew_quarantine ($1), as the broker holds them.
-- $2 is the right to become a role: SET from PostgreSQL 16 on, before that every MEMBER has it.
SELECT n.name,
       r.oid IS NOT NULL,
       coalesce(r.rolcanlogin, false),
       coalesce(pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION'), false),
       coalesce(pg_has_role(r.oid, 'USAGE') AND pg_has_role(r.oid, $2), false),
       ARRAY(SELECT v.name FROM (VALUES ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole),
                                        ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) v (name, has) WHERE v.has),
       ARRAY(SELECT o.rolname::text FROM pg_roles o
              WHERE o.oid <> r.oid AND NOT r.rolsuper AND pg_has_role(r.oid, o.oid, 'MEMBER')
                AND (o.rolsuper OR o.rolcreaterole OR o.rolreplication OR o.rolbypassrls
                     OR o.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend'))
              ORDER BY 1)
  FROM unnest($1::text[]) WITH ORDINALITY n (name, ord)
  LEFT JOIN pg_roles r ON r.rolname = n.name
 ORDER BY n.ord
