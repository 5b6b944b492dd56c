-- Connections that have not proved themselves yet.
SELECT id, COALESCE(host, '') FROM performance_schema.processlist WHERE user = ?
