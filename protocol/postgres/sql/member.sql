-- Rights come by membership only: a GRANT per account on tables would bloat their ACL until
-- "row is too big". :options is empty before PostgreSQL 16, then says INHERIT and SET.
GRANT :"group" TO :"account" :options;
