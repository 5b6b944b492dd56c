-- The grant ends later than it was to. Whoever is in stays in.
ALTER USER :account WITH MAX_STATEMENT_TIME :left;
