-- Whether a role (first parameter) exists, and whether this user (second and third) may give it to others.
SELECT EXISTS (SELECT * FROM mysql.user WHERE User = ? AND Host = '%'),
       EXISTS (SELECT * FROM mysql.role_edges WHERE FROM_USER = ? AND FROM_HOST = '%' AND TO_USER = ? AND TO_HOST = ? AND WITH_ADMIN_OPTION = 'Y')
