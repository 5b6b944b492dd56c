-- Whether a connection is the broker's.
SELECT COUNT(*) FROM information_schema.processlist WHERE id = ? AND user = SUBSTRING_INDEX(USER(), '@', 1)
