-- The roles of a user, or of a role (whose host is empty).
SELECT Role, '' FROM mysql.roles_mapping WHERE User = ? AND Host = ?
