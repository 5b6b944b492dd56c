REVOKE :"account" FROM :"member";
