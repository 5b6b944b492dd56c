-- Users without a name: a login may be taken for one of them.
SELECT Host FROM mysql.user WHERE User = '' AND is_role = 'N'
