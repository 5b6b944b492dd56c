-- What a DBA reads in \du+, and what a restart of Curfew needs to end the account. Neither the account
-- nor anybody who holds its groups can change it.
COMMENT ON ROLE :"account" IS :'note';
