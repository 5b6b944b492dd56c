SELECT (SELECT COUNT(*) FROM mysql.user WHERE User IN (?, ?)) AS users,
       (SELECT COUNT(*) FROM information_schema.processlist WHERE user IN (?, ?)) AS backends
