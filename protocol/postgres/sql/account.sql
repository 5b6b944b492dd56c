-- What the server knows of an account: its oid, whether it may log in, the note that Curfew keeps in its
-- comment, and, should the note be lost, the transaction that gave it its groups (64 bits: xids of rows
-- are widened by their distance from the next one).
SELECT r.oid::bigint,
       r.rolcanlogin,
       coalesce(shobj_description(r.oid, 'pg_authid'), ''),
       coalesce((SELECT min(n.next + ((m.xmin::text::bigint - n.next + 2147483648) & 4294967295) - 2147483648)
                   FROM pg_auth_members m,
                        (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) n
                  WHERE m.member = r.oid AND m.xmin::text::bigint > 2), 0)
  FROM pg_roles r
 WHERE r.rolname = $1
