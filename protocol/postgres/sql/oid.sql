-- The role of this name.
SELECT oid FROM pg_roles WHERE rolname = $1
