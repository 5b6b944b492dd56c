-- The server, as far as it concerns Curfew.
SELECT @@global.read_only, @@max_connections, CURRENT_USER(), DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%d %H:%i:%s.%f'),
       @@event_scheduler = 'ON', @@performance_schema = 0, 0
