-- What Curfew needs on this MySQL server. Run it as an administrator; running it again does no harm.
--
-- 1. The broker, the login that makes and ends accounts. It is made locked and without a password; afterwards
--      ALTER USER … IDENTIFIED BY '…' ACCOUNT UNLOCK
--    Replace % by the host that Curfew connects from, if it says %.
CREATE USER IF NOT EXISTS :broker ACCOUNT LOCK;
-- To make accounts, to see their sessions, and to end them.
GRANT CREATE USER, PROCESS ON *.* TO :broker;
GRANT CONNECTION_ADMIN, XA_RECOVER_ADMIN ON *.* TO :broker;
GRANT SELECT ON mysql.* TO :broker;
GRANT SELECT ON performance_schema.* TO :broker;
-- To see what people leave behind: what has them as DEFINER.
GRANT SHOW VIEW, TRIGGER, EVENT ON *.* TO :broker;
GRANT SHOW_ROUTINE ON *.* TO :broker;
-- To give that to curfew_quarantine, which has no rights. Without these a DBA has to deal with it by hand, and
-- the account stays on the server until then, locked. (Before MySQL 8.2 the first is called SET_USER_ID.)
GRANT :definer ON *.* TO :broker;
GRANT CREATE VIEW, DROP ON *.* TO :broker;
CREATE USER IF NOT EXISTS curfew_quarantine@localhost IDENTIFIED WITH caching_sha2_password AS 0x:nobody ACCOUNT LOCK;
--
-- 2. The roles of the access levels, which the broker may give.
:roles
--
-- 3. What the roles may do is yours to say, to the role and never to an account. For example
--      GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO a_role;
--    Views, routines, triggers and events are found when a grant ends, tables are not: who made one stands in the
--    recording.
