-- The ways in which this server can check a password.
SELECT plugin_name FROM information_schema.plugins
 WHERE plugin_type = 'AUTHENTICATION' AND plugin_status = 'ACTIVE'
