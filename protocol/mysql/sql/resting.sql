-- Every backend of an account and of its role (third parameter 0) or one of them, and whether it is at work.
SELECT id, command, '', '', 0, '', COALESCE(state, '') FROM information_schema.processlist WHERE user IN (?, ?) AND (? = 0 OR id = ?)
