DROP ROLE :"account";
