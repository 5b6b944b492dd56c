-- A role that the account's level does not name (any more).
REVOKE :role FROM :grantee;
