-- What Curfew keeps with an account while it is being cleaned. MariaDB has no place for a comment on a user;
-- the account is locked, and no certificate has such a subject.
ALTER USER :account REQUIRE SUBJECT :'note' ACCOUNT LOCK;
