-- Every role that an account ($1) can become or whose rights it has: what it makes as one of them is
-- owned by that role, and the account's own list stays empty. $2: the groups of its level, in case
-- somebody has taken one away in the meantime. curfew_quarantine is nobody's.
SELECT r.oid::bigint, r.rolname
  FROM pg_roles r
 WHERE r.oid <> $1::bigint::oid AND NOT r.rolsuper AND r.rolname <> 'curfew_quarantine'
   AND (pg_has_role($1::bigint::oid, r.oid, 'MEMBER') OR r.rolname = ANY ($2::text[]))
 ORDER BY 1
