-- The databases in which an account ($1) or a role that it can become ($2) owns or may do anything, and
-- whether the account itself is among them: those must be cleaned, the others only looked at.
SELECT d.datname, bool_or(s.refobjid = $1::bigint::oid)
  FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass
   AND (s.refobjid = $1::bigint::oid OR s.refobjid = ANY ($2::bigint[]::oid[]))
 GROUP BY d.datname
 ORDER BY d.datname
