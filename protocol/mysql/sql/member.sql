-- Rights come by roles only.
GRANT :role TO :grantee;
