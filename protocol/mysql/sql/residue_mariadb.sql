-- Everything with a definer that is the account (the parameter, as a user or as a role) or some role, and
-- when it was made or changed, where the server says so.
SELECT * FROM (
  SELECT 'view' AS kind, CONVERT(TABLE_SCHEMA USING utf8mb4) COLLATE utf8mb4_bin AS db, CONVERT(TABLE_NAME USING utf8mb4) COLLATE utf8mb4_bin AS name,
         '' AS tab, CONVERT(SECURITY_TYPE USING utf8mb4) COLLATE utf8mb4_bin AS security, CONVERT(DEFINER USING utf8mb4) COLLATE utf8mb4_bin AS definer, '' AS touched
    FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN ('sys', 'information_schema', 'performance_schema', 'mysql')
  UNION ALL
  SELECT 'trigger', CONVERT(TRIGGER_SCHEMA USING utf8mb4) COLLATE utf8mb4_bin, CONVERT(TRIGGER_NAME USING utf8mb4) COLLATE utf8mb4_bin,
         CONVERT(EVENT_OBJECT_TABLE USING utf8mb4) COLLATE utf8mb4_bin, 'DEFINER', CONVERT(DEFINER USING utf8mb4) COLLATE utf8mb4_bin,
         COALESCE(DATE_FORMAT(CREATED, '%Y-%m-%d %H:%i:%s'), '')
    FROM information_schema.TRIGGERS
  UNION ALL
  SELECT 'event', CONVERT(EVENT_SCHEMA USING utf8mb4) COLLATE utf8mb4_bin, CONVERT(EVENT_NAME USING utf8mb4) COLLATE utf8mb4_bin,
         '', 'DEFINER', CONVERT(DEFINER USING utf8mb4) COLLATE utf8mb4_bin, DATE_FORMAT(LAST_ALTERED, '%Y-%m-%d %H:%i:%s')
    FROM information_schema.EVENTS
  UNION ALL
  SELECT LOWER(CONVERT(type USING utf8mb4)) COLLATE utf8mb4_bin, CONVERT(db USING utf8mb4) COLLATE utf8mb4_bin, CONVERT(name USING utf8mb4) COLLATE utf8mb4_bin,
         '', CONVERT(security_type USING utf8mb4) COLLATE utf8mb4_bin, CONVERT(definer USING utf8mb4) COLLATE utf8mb4_bin, DATE_FORMAT(modified, '%Y-%m-%d %H:%i:%s')
    FROM mysql.proc
) o
 WHERE SUBSTRING_INDEX(definer, '@', 1) = ? OR definer NOT LIKE '%@_%'
 ORDER BY db, kind, name
