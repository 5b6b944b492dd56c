-- A new account, in the transaction that provision.go begins. The verifier stands in for a password,
-- so that nothing secret can reach the server's log.
CREATE ROLE :"account" LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  CONNECTION LIMIT :sessions PASSWORD :'verifier' VALID UNTIL :'end';
-- The broker joins the account: it must be able to terminate its backends, read their transaction ids
-- and re-own what it leaves. :broker_options is empty before PostgreSQL 16, then INHERIT and SET.
GRANT :"account" TO CURRENT_USER :broker_options;
