-- An account of an earlier process is taken over: locked and emptied before (cut.go), it gets a new
-- secret and everything that its holder may have changed is set back. What it owns stays.
ALTER ROLE :"account" LOGIN INHERIT
  CONNECTION LIMIT :sessions PASSWORD :'verifier' VALID UNTIL :'end';
ALTER ROLE :"account" RESET ALL;
