-- Every user or role that looks like an account of some Curfew.
SELECT DISTINCT User FROM mysql.user WHERE User REGEXP '^curfew_[^_]+_g[0-9a-z]+$' ORDER BY User
