-- What an account leaves behind in this database.
--
--   $1 the account            $2 the roles that it can become
--   $3 the transaction that made the account (64 bits)
--   $4 whether objects that belong to no database are looked at here, too
--
-- Of the account's own, everything that pg_shdepend knows. Of the roles that it can become, what is new
-- or changed since $3: the row that says so (pg_shdepend for ownership, the object's own row for its
-- definition) was written by a transaction between $3 and now. Row xids have 32 bits; a distance from
-- $3 that is no longer than the way from $3 to now needs no more. Frozen rows keep theirs.
WITH span AS (
  SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - $3::bigint AS length
), role AS (
  SELECT r.oid, r.rolname FROM pg_roles r
   WHERE r.oid = $1::bigint::oid OR r.oid = ANY ($2::bigint[]::oid[])
), owned AS (
  SELECT s.classid, s.objid, s.objsubid, s.deptype, r.oid AS owner, r.rolname AS owner_name,
         s.xmin::text::bigint > 2 AND ((s.xmin::text::bigint - $3::bigint) & 4294967295) <= span.length AS fresh
    FROM pg_shdepend s JOIN role r ON r.oid = s.refobjid, span
   WHERE s.refclassid = 'pg_authid'::regclass
     AND (s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) OR (s.dbid = 0 AND $4::boolean))
     AND (r.oid = $1::bigint::oid OR s.deptype = 'o')
), relation AS (
  SELECT c.oid, c.relkind, c.relacl,
         c.xmin::text::bigint > 2 AND ((c.xmin::text::bigint - $3::bigint) & 4294967295) <= span.length AS touched,
         EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.rulename = '_RETURN'
                    AND w.xmin::text::bigint > 2 AND ((w.xmin::text::bigint - $3::bigint) & 4294967295) <= span.length) AS redefined,
         EXISTS (SELECT FROM aclexplode(c.relacl) x WHERE x.grantee <> c.relowner)
           OR EXISTS (SELECT FROM pg_attribute t, aclexplode(t.attacl) x WHERE t.attrelid = c.oid AND x.grantee <> c.relowner) AS exposed,
         EXISTS (SELECT FROM aclexplode(c.relacl) x WHERE x.grantee = 0) AS public
    FROM pg_class c, span
   WHERE c.relowner IN (SELECT oid FROM role)
), routine AS (
  SELECT p.oid, p.prosecdef,
         p.xmin::text::bigint > 2 AND ((p.xmin::text::bigint - $3::bigint) & 4294967295) <= span.length AS touched,
         EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x WHERE x.grantee <> p.proowner) AS exposed
    FROM pg_proc p, span
   WHERE p.proowner IN (SELECT oid FROM role)
), found AS (
  SELECT o.classid, o.objid, o.objsubid, o.deptype::text AS dep, o.owner_name AS owner, o.owner = $1::bigint::oid AS own,
         o.fresh AND ((o.objid::bigint - $1::bigint) & 4294967295) < 2147483648 AS made,
         coalesce(f.prosecdef, c.relkind IN ('v', 'm') OR (c.public AND o.owner <> $1::bigint::oid),
                  o.classid = 'pg_default_acl'::regclass AND o.owner <> $1::bigint::oid) AND o.deptype = 'o' AS alert,
         coalesce(f.exposed, c.exposed, false) AS exposed
    FROM owned o
    LEFT JOIN relation c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
    LEFT JOIN routine f ON o.classid = 'pg_proc'::regclass AND f.oid = o.objid
   WHERE o.owner = $1::bigint::oid OR o.fresh OR f.touched OR c.redefined OR (c.touched AND c.public)
  UNION ALL -- triggers: they run with the rights of whoever touches the table
  SELECT 'pg_trigger'::regclass, t.oid, 0, 'x', pg_get_userbyid(c.relowner), false, false, true, true
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid, span
   WHERE NOT t.tgisinternal
     AND t.xmin::text::bigint > 2 AND ((t.xmin::text::bigint - $3::bigint) & 4294967295) <= span.length
     AND (p.proowner IN (SELECT oid FROM role)
          OR EXISTS (SELECT FROM role r WHERE has_table_privilege(r.oid, c.oid, 'TRIGGER')))
  UNION ALL -- rules that rewrite statements on a table
  SELECT 'pg_rewrite'::regclass, w.oid, 0, 'x', r.rolname, false, false, true, true
    FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class JOIN role r ON r.oid = c.relowner, span
   WHERE w.rulename <> '_RETURN'
     AND w.xmin::text::bigint > 2 AND ((w.xmin::text::bigint - $3::bigint) & 4294967295) <= span.length
  UNION ALL -- row security of a group's tables
  SELECT 'pg_policy'::regclass, l.oid, 0, 'x', r.rolname, false, false, true, true
    FROM pg_policy l JOIN pg_class c ON c.oid = l.polrelid JOIN role r ON r.oid = c.relowner, span
   WHERE l.xmin::text::bigint > 2 AND ((l.xmin::text::bigint - $3::bigint) & 4294967295) <= span.length
)
SELECT f.classid::bigint, f.objid::bigint, i.type, pg_describe_object(f.classid, f.objid, f.objsubid),
       f.owner, f.dep, f.own, f.made, f.alert, f.exposed
  FROM found f, pg_identify_object(f.classid, f.objid, f.objsubid) i
 WHERE i.type IS NOT NULL
 ORDER BY f.own DESC, 4
