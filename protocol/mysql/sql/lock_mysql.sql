-- The first step of an end: nobody logs in any more, and no password fits.
ALTER USER :account IDENTIFIED WITH :plugin AS :verifier ACCOUNT LOCK;
