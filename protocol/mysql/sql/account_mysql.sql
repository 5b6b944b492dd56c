-- What the server knows of an account: its hosts, and the note that Curfew keeps with it.
SELECT u.Host, COALESCE(CAST(a.ATTRIBUTE AS CHAR), '')
  FROM mysql.user u LEFT JOIN information_schema.user_attributes a ON a.USER = u.User AND a.HOST = u.Host
 WHERE u.User = ?
