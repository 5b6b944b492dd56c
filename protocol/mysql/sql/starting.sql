-- Connections that have not proved themselves yet.
SELECT id, COALESCE(host, '') FROM information_schema.processlist WHERE user = ?
