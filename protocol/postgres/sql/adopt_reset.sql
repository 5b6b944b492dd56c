-- Settings that the holder made for one database.
ALTER ROLE :"account" IN DATABASE :"database" RESET ALL;
