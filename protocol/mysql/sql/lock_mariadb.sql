-- The first step of an end: nobody logs in any more, and no password fits.
ALTER USER :account IDENTIFIED VIA :plugin USING :verifier ACCOUNT LOCK;
