-- Prepared transactions that are this grant's: owned by the account ($1), or owned by a role that it can
-- become ($2) under a global id that its recordings show as prepared ($3). Never anybody else's.
SELECT p.gid, d.datname, r.rolname
  FROM pg_prepared_xact() p
  JOIN pg_database d ON d.oid = p.dbid
  JOIN pg_roles r ON r.oid = p.ownerid
 WHERE p.ownerid = $1::bigint::oid
    OR (p.ownerid = ANY ($2::bigint[]::oid[]) AND p.gid = ANY ($3::text[]))
 ORDER BY p.prepared
