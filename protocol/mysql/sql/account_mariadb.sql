-- What the server knows of an account: its hosts, and the note that Curfew keeps with it once it is locked.
SELECT Host, COALESCE(x509_subject, '') FROM mysql.user WHERE User = ? AND is_role = 'N'
