-- The first step of an end, in a commit of its own: nobody logs in any more.
ALTER ROLE :"account" NOLOGIN PASSWORD NULL VALID UNTIL '-infinity' CONNECTION LIMIT 0;
