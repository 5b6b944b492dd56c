-- The oid of a new account (its name quoted), which is there for everybody from now on.
SELECT :'account'::regrole::oid;
COMMIT;
