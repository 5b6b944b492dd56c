-- The broker's password, as a verifier.
ALTER USER :account IDENTIFIED VIA :plugin USING :verifier ACCOUNT UNLOCK;
