#!/bin/bash
# Runs once in the mariadb container: an example table, the group roles, and Curfew's broker.
# `curfew check shop --print-setup` prints the same for any policy, and says what each right is for.
set -euo pipefail
broker=$(cat "${SHARED:-/shared}/mariadb-broker.password")
MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb --protocol=socket -uroot shop <<SQL
CREATE TABLE baskets (
  id bigint unsigned AUTO_INCREMENT PRIMARY KEY,
  item varchar(200) NOT NULL,
  at timestamp NOT NULL DEFAULT current_timestamp());
INSERT INTO baskets (item) VALUES ('anvil'), ('bell'), ('candle');

CREATE ROLE shop_reader;
CREATE ROLE shop_writer;
GRANT SELECT ON shop.* TO shop_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO shop_writer;

CREATE USER curfew_broker IDENTIFIED BY '$broker' REQUIRE SSL;
GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO curfew_broker;
GRANT SELECT (Host, User, is_role, x509_subject, plugin, Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv,
  Reload_priv, Shutdown_priv, Process_priv, File_priv, Grant_priv, Super_priv, Create_user_priv) ON mysql.user TO curfew_broker;
GRANT SELECT ON mysql.db TO curfew_broker;
GRANT SELECT ON mysql.roles_mapping TO curfew_broker;
GRANT SHOW VIEW, TRIGGER, EVENT ON *.* TO curfew_broker;
GRANT SELECT ON mysql.proc TO curfew_broker;
GRANT SELECT ON mysql.tables_priv TO curfew_broker;
GRANT SELECT ON mysql.procs_priv TO curfew_broker;
GRANT SELECT ON mysql.proxies_priv TO curfew_broker;
GRANT SET USER, CREATE VIEW, DROP ON *.* TO curfew_broker;
GRANT UPDATE (definer, created) ON mysql.proc TO curfew_broker;
GRANT shop_reader TO curfew_broker WITH ADMIN OPTION;
GRANT shop_writer TO curfew_broker WITH ADMIN OPTION;
CREATE USER curfew_quarantine@localhost IDENTIFIED VIA mysql_native_password USING 'invalid' ACCOUNT LOCK;
SQL
