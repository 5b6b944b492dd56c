-- 4. For a trial on a database of one's own: :"reader" may read and :"writer" may also write every table
--    that is here now, or that the owners of today's tables make later.
DO $starter$
DECLARE
  schema_name text;
  owner_name text;
BEGIN
  FOR schema_name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I, %I', schema_name, :'reader', :'writer');
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', schema_name, :'reader');
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I', schema_name, :'writer');
    EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %I TO %I', schema_name, :'writer');
    FOR owner_name IN SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = schema_name LOOP
      EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I', owner_name, schema_name, :'reader');
      EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %I', owner_name, schema_name, :'writer');
      EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT USAGE, SELECT ON SEQUENCES TO %I', owner_name, schema_name, :'writer');
    END LOOP;
  END LOOP;
END
$starter$;
