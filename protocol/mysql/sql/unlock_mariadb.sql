-- The last step of making an account.
ALTER USER :account ACCOUNT UNLOCK;
