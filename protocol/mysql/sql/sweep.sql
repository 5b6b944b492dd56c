-- Every user that looks like an account of some Curfew, or has left its role.
SELECT DISTINCT REPLACE(User, '_role', '') FROM mysql.user WHERE User REGEXP '^curfew_[^_]+_g[0-9a-z]+(_role)?$' ORDER BY 1
