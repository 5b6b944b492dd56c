-- A routine or package that the account left: nobody's. Text, SQL mode and character sets stay as they are.
-- created says when it was made, but follows every change of the row that does not name it.
UPDATE mysql.proc SET definer = ?, created = created WHERE db = ? AND name = ? AND type = ? AND definer = ?
