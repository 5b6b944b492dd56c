-- 4. For a trial on a database of one's own: :"reader" may read and :"writer" may also write every table
--    that is there now, or that comes later.
GRANT SELECT, SHOW VIEW ON :"database".* TO :"reader";
GRANT SELECT, SHOW VIEW, INSERT, UPDATE, DELETE ON :"database".* TO :"writer";
