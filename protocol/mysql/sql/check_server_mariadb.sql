-- The server, as far as it concerns Curfew.
SELECT @@global.read_only, @@max_connections, CURRENT_USER(), DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%d %H:%i:%s.%f'),
       @@event_scheduler = 'ON', @@userstat = 0,
       @@strict_password_validation AND EXISTS (SELECT * FROM information_schema.plugins WHERE plugin_type = 'PASSWORD VALIDATION' AND plugin_status = 'ACTIVE')
