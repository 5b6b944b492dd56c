#!/bin/bash
# Runs once in the postgres container: an example table, the group roles, and Curfew's broker.
# `curfew check --print-setup` prints the same for any policy.
set -euo pipefail
broker=$(cat "${SHARED:-/shared}/broker.password")
psql -v ON_ERROR_STOP=1 -U postgres -d orders -v broker="$broker" <<'SQL'
CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  item text NOT NULL,
  at timestamptz NOT NULL DEFAULT now());
INSERT INTO orders (item) VALUES ('anvil'), ('bell'), ('candle');

CREATE ROLE orders_reader NOLOGIN;
CREATE ROLE orders_writer NOLOGIN;
CREATE ROLE curfew_quarantine NOLOGIN;
GRANT USAGE ON SCHEMA public TO orders_reader, orders_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO orders_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO orders_writer;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO orders_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orders_writer;
GRANT USAGE, CREATE ON SCHEMA public TO curfew_quarantine;

CREATE ROLE curfew_broker LOGIN CREATEROLE NOSUPERUSER PASSWORD :'broker';
GRANT pg_signal_backend TO curfew_broker;
GRANT orders_reader, orders_writer, curfew_quarantine TO curfew_broker WITH ADMIN OPTION;
SQL
