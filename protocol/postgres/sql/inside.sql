-- How many backends an account ($1) has.
SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1::bigint::oid
