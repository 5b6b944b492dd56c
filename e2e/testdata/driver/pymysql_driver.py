"""What PyMySQL does: everything is text, values are pasted by the driver."""

import datetime
import decimal
import os
import pymysql
import pymysql.cursors

TABLE = os.environ["DB_TABLE"]
CA = os.environ.get("DB_CA")


def connect(**more):
    return pymysql.connect(
        host=os.environ["DB_HOST"], port=int(os.environ["DB_PORT"]), user=os.environ["DB_USER"],
        password=os.environ["DB_PASSWORD"], database=os.environ["DB_NAME"], charset="utf8mb4",
        ssl={"ca": CA} if CA else None, **more)


VALUES = (
    -42, 18446744073709551615, decimal.Decimal("12345678901234.567890"), 0.1, "Grüße, 世界 🎈", b"\x00\xff'\"\\\n", None,
    datetime.datetime(2026, 2, 28, 23, 59, 58, 123456), datetime.date(2026, 2, 28), datetime.timedelta(hours=12, minutes=34, seconds=56),
)

with connect() as c, c.cursor() as cur:
    cur.execute(
        f"INSERT INTO {TABLE} (id, big, price, ratio, name, data, nothing, moment, day, clock)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)", VALUES)
    c.commit()
    cur.execute(f"SELECT * FROM {TABLE} WHERE id = %s", (-42,))
    assert cur.fetchone() == VALUES

    # Prepared in SQL.
    cur.execute("PREPARE p FROM 'SELECT ? + ?'")
    cur.execute("SET @a = 40, @b = 2")
    cur.execute("EXECUTE p USING @a, @b")
    assert cur.fetchone()[0] == 42
    cur.execute("DEALLOCATE PREPARE p")

    cur.execute("SELECT seq FROM seq_1_to_1000")
    assert sum(r[0] for r in cur.fetchall()) == 500500

    try:
        cur.execute("SELECT * FROM there_is_no_such_table")
        raise AssertionError("no error")
    except pymysql.err.ProgrammingError as e:
        assert e.args[0] == 1146, e

    c.begin()
    cur.execute(f"INSERT INTO {TABLE} (id, name) VALUES (1, 'rolled back')")
    c.rollback()
    c.begin()
    cur.execute(f"INSERT INTO {TABLE} (id, name) VALUES (2, 'committed')")
    c.commit()

    cur.executemany(f"INSERT INTO {TABLE} (id, name) VALUES (%s, %s)", [(1000 + i, f"bulk {i}") for i in range(100)])
    c.commit()
    c.ping(reconnect=False)
    c.select_db("other")
    cur.execute("SELECT DATABASE()")
    assert cur.fetchone()[0] == "other"

with connect(cursorclass=pymysql.cursors.SSCursor) as c, c.cursor() as cur:
    cur.execute("SELECT REPEAT('x', 1000) FROM seq_1_to_5000")
    assert sum(len(r[0]) for r in cur) == 5000000

with connect(client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS) as c, c.cursor() as cur:
    cur.execute("SELECT 1; DO 2; SELECT 3 UNION SELECT 4")
    assert cur.nextset() and cur.nextset()
    assert cur.fetchall() == ((3,), (4,))

print("ok")
