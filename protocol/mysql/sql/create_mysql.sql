-- A new account. What stands for a password is a verifier, so that nothing secret can reach the server's
-- log. It is locked until it has its roles. The attribute is for the DBA, and for Curfew after a restart.
CREATE USER :account IDENTIFIED WITH :plugin AS :verifier REQUIRE :require
  WITH MAX_USER_CONNECTIONS :connections PASSWORD EXPIRE NEVER ACCOUNT LOCK ATTRIBUTE :'note';
