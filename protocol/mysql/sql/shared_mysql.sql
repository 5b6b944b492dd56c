-- Whoever was given the account itself, as a role.
SELECT FROM_HOST, TO_USER, TO_HOST FROM mysql.role_edges WHERE FROM_USER = ?
