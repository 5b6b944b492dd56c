-- The grant ends later than it was to. Whoever is in stays in; the rest of the dead man's switch follows.
ALTER ROLE :"account" VALID UNTIL :'end';
