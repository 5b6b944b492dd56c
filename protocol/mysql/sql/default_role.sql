-- Run by the account itself: for another user it takes the right to write the mysql database.
SET DEFAULT ROLE :"role";
