-- How many transactions were committed by this account.
SELECT 'account', CAST(COALESCE(SUM(variable_value), 0) AS SIGNED)
  FROM performance_schema.status_by_account
 WHERE user = ? AND ? <> '' AND variable_name = 'Handler_commit' AND @@performance_schema = 1
