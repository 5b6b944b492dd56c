-- The broker's password, as a verifier.
ALTER USER :account IDENTIFIED WITH :plugin AS :verifier ACCOUNT UNLOCK;
