-- A group that the account's level does not name (any more).
REVOKE :"group" FROM :"account";
