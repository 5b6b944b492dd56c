-- How many transactions were committed: by this user where the server counts by user (userstat=1; who is in
-- for the first time is counted when gone, so there may be no row yet), else by anybody.
SELECT 'user', COALESCE((SELECT SUM(commit_transactions) FROM information_schema.user_statistics WHERE user = ?), 0) FROM DUAL WHERE @@userstat = 1
UNION ALL
SELECT 'server', CAST(variable_value AS SIGNED) FROM information_schema.global_status WHERE variable_name = 'HANDLER_COMMIT' AND @@userstat = 0 AND ? <> ''
