-- Whether a role (first parameter) exists, and whether this user (second and third) may give it to others.
SELECT EXISTS (SELECT * FROM mysql.user WHERE User = ? AND is_role = 'Y'),
       EXISTS (SELECT * FROM mysql.roles_mapping WHERE Role = ? AND User = ? AND Host = ? AND Admin_option = 'Y')
