-- What Curfew needs on this PostgreSQL server. Run it as a superuser; running it again does no harm.
--
-- 1. Once for the server: the broker (the login that makes and ends accounts, never a superuser), the
--    groups of the access levels, and curfew_quarantine, which takes over what people leave behind.
--    The broker needs a password afterwards, see \password in psql.
DO $setup$
DECLARE
  role_name text;
  held text := 'WITH ADMIN OPTION';
BEGIN
  IF current_setting('server_version_num')::int >= 160000 THEN
    held := 'WITH ADMIN TRUE, INHERIT TRUE, SET TRUE';
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = :'broker' AND rolsuper) THEN
    RAISE EXCEPTION 'role % is a superuser and can not be Curfew''s broker; name another user in the URL of the target', :'broker';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'broker') THEN
    CREATE ROLE :"broker" LOGIN;
  END IF;
  ALTER ROLE :"broker" LOGIN INHERIT CREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;
  GRANT pg_signal_backend TO :"broker";
  FOREACH role_name IN ARRAY :'roles'::text[] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
    END IF;
    EXECUTE format('GRANT %I TO %I %s', role_name, :'broker', held);
  END LOOP;
END
$setup$;

-- 2. In every database in which people may create things: curfew_quarantine can own them there.
DO $setup$
DECLARE
  schema_name text;
BEGIN
  FOR schema_name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO curfew_quarantine', schema_name);
  END LOOP;
END
$setup$;

-- 3. What the groups may do is yours to say, to the group and never to an account, and for tables to come
--    as well as for those that are there. For example, with the owner of your tables as app_owner
--      GRANT USAGE ON SCHEMA public TO a_group;
--      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO a_group;
--      ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO a_group;
