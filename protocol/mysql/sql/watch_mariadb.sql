-- Who is in as an account now. Who has not proved itself yet is shown under the name that it gave; anybody
-- can do that, so it does not count.
SELECT user, id, COALESCE(host, '') FROM information_schema.processlist WHERE user REGEXP '^curfew_' AND command <> 'Connect'
