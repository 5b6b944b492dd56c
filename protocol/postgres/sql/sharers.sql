-- The other accounts than $1 that hold these roles ($2) now: what is found of a role may be theirs.
SELECT pg_get_userbyid(m.roleid)::text, array_agg(DISTINCT o.name ORDER BY o.name)
  FROM pg_auth_members m, LATERAL (SELECT pg_get_userbyid(m.member)::text AS name) o
 WHERE m.roleid = ANY ($2::bigint[]::oid[]) AND m.member <> $1::bigint::oid AND o.name ~ '^curfew_[^_]+_g'
 GROUP BY m.roleid
