-- Whether curfew_quarantine exists, and what it may do.
SELECT (SELECT COUNT(*) FROM mysql.user WHERE User = 'curfew_quarantine' AND Host = 'localhost'),
       (SELECT COUNT(*) FROM mysql.user WHERE User = 'curfew_quarantine' AND 'Y' IN (Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv, Process_priv, File_priv, Grant_priv, Super_priv, Create_user_priv))
       + (SELECT COUNT(*) FROM mysql.db WHERE User = 'curfew_quarantine')
       + (SELECT COUNT(*) FROM mysql.tables_priv WHERE User = 'curfew_quarantine')
       + (SELECT COUNT(*) FROM mysql.roles_mapping WHERE User = 'curfew_quarantine')
