-- Every role that an account ($1) can become or whose rights it has: what it makes as one of them is
-- owned by that role, and the account's own list stays empty. $2: the groups of its level, in case
-- somebody has taken one away in the meantime. Beside each, the other accounts that hold it now.
SELECT r.oid::bigint, r.rolname,
       ARRAY(SELECT DISTINCT o.rolname::text
               FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.member
              WHERE m.roleid = r.oid AND m.member <> $1::bigint::oid AND o.rolname ~ '^curfew_[^_]+_g'
              ORDER BY 1)
  FROM pg_roles r
 WHERE r.oid <> $1::bigint::oid AND NOT r.rolsuper
   AND (pg_has_role($1::bigint::oid, r.oid, 'MEMBER') OR r.rolname = ANY ($2::text[]))
 ORDER BY 1
