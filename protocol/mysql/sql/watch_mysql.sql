-- Who is in as an account now.
SELECT user, id, COALESCE(host, '') FROM information_schema.processlist WHERE user REGEXP '^curfew_' AND command <> 'Connect'
