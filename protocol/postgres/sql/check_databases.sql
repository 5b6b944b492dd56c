-- The databases that one of these groups ($1) can connect to.
SELECT d.datname FROM pg_database d
 WHERE d.datallowconn AND NOT d.datistemplate
   AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = ANY ($1::text[]) AND has_database_privilege(r.oid, d.oid, 'CONNECT'))
 ORDER BY d.datname
