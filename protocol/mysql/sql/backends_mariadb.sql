-- Every backend of an account and of its role (third parameter 0) or one of them, what it runs and the transaction
-- that it has open. Connections that have not proved themselves yet stand under the name that they gave, and
-- what runs an event under its definer's.
SELECT p.id, p.command, COALESCE(LEFT(p.info, 4096), ''), COALESCE(t.trx_id, ''), COALESCE(t.trx_rows_modified, 0),
       COALESCE(IF(t.trx_operation_state LIKE 'rollback%', 'ROLLING BACK', t.trx_state), ''), COALESCE(p.state, '')
  FROM information_schema.processlist p LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id
 WHERE p.user IN (?, ?) AND (? = 0 OR p.id = ?)
