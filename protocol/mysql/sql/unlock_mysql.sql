-- The last steps of making an account: all its roles are active from a session's beginning, and it opens.
SET DEFAULT ROLE ALL TO :account;
ALTER USER :account ACCOUNT UNLOCK;
