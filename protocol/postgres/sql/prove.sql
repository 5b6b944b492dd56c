SELECT (SELECT count(*) FROM pg_roles WHERE rolname = $1) AS roles,
       (SELECT count(*) FROM pg_stat_activity WHERE usename = $1 OR usesysid = $2::bigint::oid) AS backends,
       (SELECT count(*) FROM pg_prepared_xact() WHERE ownerid = $2::bigint::oid) AS prepared_transactions
