-- What Curfew needs on this MariaDB server. Run it as an administrator; running it again does no harm.
--
-- 1. The broker, the login that makes and ends accounts. It is made locked and without a password; afterwards
--      ALTER USER … IDENTIFIED BY '…' ACCOUNT UNLOCK
--    Replace % by the host that Curfew connects from, if it says %.
CREATE USER IF NOT EXISTS :broker ACCOUNT LOCK;
-- To make accounts, to see their sessions, and to end them.
GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO :broker;
GRANT SELECT (Host, User, is_role, x509_subject, plugin, Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv,
  Reload_priv, Shutdown_priv, Process_priv, File_priv, Grant_priv, Super_priv, Create_user_priv) ON mysql.user TO :broker;
GRANT SELECT ON mysql.db TO :broker;
GRANT SELECT ON mysql.roles_mapping TO :broker;
-- To see what people leave behind: what has them as DEFINER, and rights that they gave to others.
GRANT SHOW VIEW, TRIGGER, EVENT ON *.* TO :broker;
GRANT SELECT ON mysql.proc TO :broker;
GRANT SELECT ON mysql.tables_priv TO :broker;
GRANT SELECT ON mysql.procs_priv TO :broker;
GRANT SELECT ON mysql.proxies_priv TO :broker;
-- To give that to curfew_quarantine, which has no rights. Without these a DBA has to deal with it by hand, and
-- the account stays on the server until then, locked.
GRANT SET USER, CREATE VIEW, DROP ON *.* TO :broker;
GRANT UPDATE (definer, created) ON mysql.proc TO :broker;
CREATE USER IF NOT EXISTS curfew_quarantine@localhost IDENTIFIED VIA mysql_native_password USING 'invalid' ACCOUNT LOCK;
--
-- 2. The roles of the access levels, which the broker may give.
:roles
--
-- 3. What the roles may do is yours to say, to the role and never to an account. For example
--      GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO a_role;
--    Views, routines, triggers and events are found when a grant ends, tables are not: who made one stands in the
--    recording.
