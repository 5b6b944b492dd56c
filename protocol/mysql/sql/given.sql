-- Rights that the account gave to others, as far as the server notes who gave them: on tables and columns,
-- on routines, and to act as somebody else.
SELECT Db, CONCAT('table ', Db, '.', Table_name), CONCAT(User, '@', Host), CONCAT_WS(',', NULLIF(Table_priv, ''), NULLIF(Column_priv, ''))
  FROM mysql.tables_priv WHERE SUBSTRING_INDEX(Grantor, '@', 1) = ?
UNION ALL
SELECT Db, CONCAT(LOWER(Routine_type), ' ', Db, '.', Routine_name), CONCAT(User, '@', Host), CONCAT(Proc_priv, '')
  FROM mysql.procs_priv WHERE SUBSTRING_INDEX(Grantor, '@', 1) = ?
UNION ALL
SELECT '', CONCAT('user ', Proxied_user, '@', Proxied_host), CONCAT(User, '@', Host), 'PROXY'
  FROM mysql.proxies_priv WHERE SUBSTRING_INDEX(Grantor, '@', 1) = ?
