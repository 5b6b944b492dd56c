-- A new account. What stands for a password is a verifier, so that nothing secret can reach the server's
-- log. It is locked until it has its roles. MAX_STATEMENT_TIME is a back-stop: what is left of the grant.
CREATE USER :account IDENTIFIED VIA :plugin USING :verifier REQUIRE :require
  WITH MAX_USER_CONNECTIONS :connections MAX_STATEMENT_TIME :left PASSWORD EXPIRE NEVER ACCOUNT LOCK;
