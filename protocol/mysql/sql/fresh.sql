-- Whether the list of transactions was made by the query before this one: beside a transaction stands what it
-- was asking then.
SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = CONNECTION_ID() AND trx_query LIKE ?
