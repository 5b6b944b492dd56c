-- Everything whose definer is the account, and when it was made or changed, where the server says so.
SELECT * FROM (
  SELECT 'view' AS kind, TABLE_SCHEMA AS db, TABLE_NAME AS name, '' AS tab, SECURITY_TYPE AS security, DEFINER AS definer, '' AS touched
    FROM information_schema.VIEWS
  UNION ALL
  SELECT 'trigger', TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE, 'DEFINER', DEFINER, COALESCE(DATE_FORMAT(CREATED, '%Y-%m-%d %H:%i:%s'), '')
    FROM information_schema.TRIGGERS
  UNION ALL
  SELECT 'event', EVENT_SCHEMA, EVENT_NAME, '', 'DEFINER', DEFINER, DATE_FORMAT(LAST_ALTERED, '%Y-%m-%d %H:%i:%s')
    FROM information_schema.EVENTS
  UNION ALL
  SELECT LOWER(ROUTINE_TYPE), ROUTINE_SCHEMA, ROUTINE_NAME, '', SECURITY_TYPE, DEFINER, DATE_FORMAT(LAST_ALTERED, '%Y-%m-%d %H:%i:%s')
    FROM information_schema.ROUTINES
) o
 WHERE SUBSTRING_INDEX(definer, '@', 1) = ?
 ORDER BY db, kind, name
