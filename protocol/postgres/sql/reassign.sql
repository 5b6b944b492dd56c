-- Not to the application's owner: a view or definer function that a stranger planted would then run with
-- the owner's rights. REASSIGN leaves default privileges and grants; DROP OWNED clears them.
REASSIGN OWNED BY :"account" TO :"quarantine";
DROP OWNED BY :"account";
