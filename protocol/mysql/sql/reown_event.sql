-- An event that the account left: nobody's, and disabled.
SET character_set_client = :client;
SET collation_connection = :connection;
ALTER DEFINER = :quarantined EVENT :object DISABLE;
