-- Every role that looks like an account of some Curfew, and its comment.
SELECT rolname, coalesce(shobj_description(oid, 'pg_authid'), '')
  FROM pg_roles
 WHERE rolname ~ '^curfew_[^_]+_g[0-9a-z]+$'
 ORDER BY rolname
