-- Whoever was given the account's role.
SELECT '', User, Host FROM mysql.roles_mapping WHERE Role = ?
