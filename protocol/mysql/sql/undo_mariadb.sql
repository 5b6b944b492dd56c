-- What was made of an account when a step failed.
DROP USER IF EXISTS :account;
DROP ROLE IF EXISTS :"name";
