-- Whoever was given the account itself (before PostgreSQL 16 its holder can do that), the broker aside.
SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
 WHERE m.roleid = $1::bigint::oid AND r.rolname <> current_user
 ORDER BY 1
