-- An account of an earlier process is taken over: locked and emptied before (cut.go), it gets a new secret
-- and everything that its holder may have changed is set back. It is still locked.
ALTER USER :account IDENTIFIED VIA :plugin USING :verifier REQUIRE :require
  WITH MAX_USER_CONNECTIONS :connections MAX_STATEMENT_TIME :left PASSWORD EXPIRE NEVER ACCOUNT LOCK;
