-- Every backend of an account (third parameter 0) or one of them, what it runs and the transaction that it has
-- open. What runs an event stands under its definer's name: here, and not in performance_schema.
SELECT p.id, p.command, COALESCE(LEFT(p.info, 4096), ''), COALESCE(t.trx_id, ''), COALESCE(t.trx_rows_modified, 0),
       COALESCE(t.trx_state, ''), COALESCE(p.state, '')
  FROM information_schema.processlist p LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id
 WHERE p.user IN (?, ?) AND (? = 0 OR p.id = ?)
