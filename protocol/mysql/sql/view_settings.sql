-- The settings under which a view's text is read, and under which it was made.
SET sql_mode = '';
SET character_set_client = :client;
SET collation_connection = :connection;
