-- The statements that make harmless what an account ($1) owns here, and the objects of its groups that
-- are quarantined with it ($2 relations, $3 routines): nobody keeps a right on them but their owner, and
-- the groups' ones get curfew_quarantine as owner. Views and definer functions run with their owner's
-- rights, and curfew_quarantine has none. (The account's own are re-owned by reassign.sql.)
WITH relation AS (
  SELECT c.oid, format('%I.%I', s.nspname, c.relname) AS name, c.relowner, c.relacl
    FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
     AND (c.relowner = $1::bigint::oid OR c.oid = ANY ($2::bigint[]::oid[]))
), routine AS (
  SELECT p.oid, p.oid::regprocedure::text AS name, p.proowner, p.proacl
    FROM pg_proc p WHERE p.proowner = $1::bigint::oid OR p.oid = ANY ($3::bigint[]::oid[])
), schema AS (
  SELECT format('%I', s.nspname) AS name, s.nspowner, s.nspacl FROM pg_namespace s WHERE s.nspowner = $1::bigint::oid
), step AS (
  SELECT 1 AS n, 'TABLE ' || r.name AS object, x.grantee
    FROM relation r, aclexplode(r.relacl) x WHERE x.grantee <> r.relowner
  UNION SELECT 1, 'TABLE ' || r.name, x.grantee
    FROM relation r JOIN pg_attribute t ON t.attrelid = r.oid, aclexplode(t.attacl) x WHERE x.grantee <> r.relowner
  UNION SELECT 1, 'ROUTINE ' || r.name, x.grantee
    FROM routine r, aclexplode(coalesce(r.proacl, acldefault('f', r.proowner))) x WHERE x.grantee <> r.proowner
  UNION SELECT 1, 'SCHEMA ' || s.name, x.grantee
    FROM schema s, aclexplode(s.nspacl) x WHERE x.grantee <> s.nspowner
  UNION SELECT 1, 'LARGE OBJECT ' || l.oid, x.grantee
    FROM pg_largeobject_metadata l, aclexplode(l.lomacl) x WHERE l.lomowner = $1::bigint::oid AND x.grantee <> l.lomowner
)
SELECT sql FROM (
  SELECT n, format('REVOKE ALL ON %s FROM %s CASCADE', object,
           CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) AS sql FROM step
  UNION ALL -- what lies in a schema of the account's can only be re-owned by somebody who may create there
  SELECT 2, format('GRANT USAGE, CREATE ON SCHEMA %s TO curfew_quarantine', name) FROM schema
  UNION ALL
  SELECT 3, format('ALTER TABLE %s OWNER TO curfew_quarantine', name) FROM relation WHERE relowner <> $1::bigint::oid
  UNION ALL
  SELECT 3, format('ALTER ROUTINE %s OWNER TO curfew_quarantine', name) FROM routine WHERE proowner <> $1::bigint::oid
) s ORDER BY n, sql
