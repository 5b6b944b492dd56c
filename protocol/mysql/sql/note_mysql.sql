-- What Curfew keeps with an account while it is being cleaned.
ALTER USER :account ACCOUNT LOCK ATTRIBUTE :'note';
