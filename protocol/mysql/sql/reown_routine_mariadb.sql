-- A routine or package that the account left: nobody's. Text, SQL mode and character sets stay as they are.
UPDATE mysql.proc SET definer = ? WHERE db = ? AND name = ? AND type = ? AND definer = ?
