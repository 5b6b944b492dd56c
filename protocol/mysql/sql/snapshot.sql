-- Shows the closing line itself in the list of transactions.
START TRANSACTION WITH CONSISTENT SNAPSHOT
