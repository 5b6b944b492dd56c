-- Schemas in which one of these groups ($1) may create things that curfew_quarantine could not take over.
SELECT s.nspname FROM pg_namespace s, pg_roles q
 WHERE q.rolname = 'curfew_quarantine' AND s.nspname !~ '^pg_' AND s.nspname <> 'information_schema'
   AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = ANY ($1::text[]) AND has_schema_privilege(r.oid, s.oid, 'CREATE'))
   AND NOT (has_schema_privilege(q.oid, s.oid, 'CREATE') AND has_schema_privilege(q.oid, s.oid, 'USAGE'))
 ORDER BY s.nspname
