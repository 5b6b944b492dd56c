-- The account's role, which holds those of its level: one role is active at a time, and
-- what is made in a role's name (DEFINER = CURRENT_ROLE) must be this grant's.
CREATE ROLE IF NOT EXISTS :"name";
