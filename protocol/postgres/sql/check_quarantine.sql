-- Who shares curfew_quarantine: it must have no rights of its own (roles it is a member of), and nobody
-- but the broker should own what is put there (its members).
SELECT ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = q.oid ORDER BY 1),
       ARRAY(SELECT DISTINCT u.rolname::text FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
              WHERE m.roleid = q.oid AND u.rolname <> current_user ORDER BY 1)
  FROM pg_roles q WHERE q.rolname = 'curfew_quarantine'
