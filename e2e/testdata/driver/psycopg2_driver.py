"""What psycopg2 does: values are pasted into the text by the driver, which libpq sends as it is."""

import datetime
import decimal
import io
import json
import os
import threading
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras

TABLE = os.environ["DB_TABLE"]
CA = os.environ.get("DB_CA")
psycopg2.extras.register_uuid()


def connect():
    tls = {"sslmode": "verify-full", "sslrootcert": CA} if CA else {"sslmode": "disable"}
    return psycopg2.connect(
        host=os.environ["DB_HOST"], port=os.environ["DB_PORT"], user=os.environ["DB_USER"],
        password=os.environ["DB_PASSWORD"], dbname=os.environ["DB_NAME"], connect_timeout=20,
        options="-c TimeZone=UTC", **tls)


VALUES = (
    -42, 9223372036854775807, decimal.Decimal("12345678901234.567890"), 0.1, True, "Grüße, \"O'Hara\" \\ 世界 🎈",
    b"\x00\xff'\"\\\n", None, datetime.datetime(2026, 2, 28, 23, 59, 58, 123456, datetime.timezone.utc),
    datetime.date(2026, 2, 28), datetime.time(12, 34, 56), uuid.UUID("6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01"),
    psycopg2.extras.Json({"a": [1, "ü"]}, dumps=lambda v: json.dumps(v, ensure_ascii=False)),
    ["plain", "two words", 'quo"te', None, "ü,"], [1, -2, 3],
)
COLUMNS = "(id, big, price, ratio, flag, name, data, nothing, moment, day, clock, mark, doc, tags, numbers)"

c = connect()
with c, c.cursor() as cur:
    cur.execute(f"INSERT INTO {TABLE} {COLUMNS} VALUES ({', '.join(['%s'] * 15)})", VALUES)
with c, c.cursor() as cur:
    cur.execute(f"SELECT * FROM {TABLE} WHERE id = %s", (-42,))
    row = list(cur.fetchone())
    row[6] = bytes(row[6])
    want = list(VALUES)
    want[12] = {"a": [1, "ü"]}
    assert row == want, row

# Prepared in SQL.
with c, c.cursor() as cur:
    cur.execute(f"PREPARE p (int) AS SELECT id FROM {TABLE} WHERE id = $1")
    for _ in range(3):
        cur.execute("EXECUTE p (%s)", (-42,))
        assert cur.fetchall() == [(-42,)]
    cur.execute("DEALLOCATE p")

with c, c.cursor() as cur:
    cur.execute("SELECT n FROM generate_series(1, 1000) n")
    assert sum(r[0] for r in cur) == 500500
    try:
        cur.execute("SELECT * FROM there_is_no_such_table")
        raise AssertionError("no error")
    except psycopg2.errors.UndefinedTable as e:
        assert e.pgcode == "42P01" and e.diag.statement_position == "15", e
    c.rollback()

with c.cursor() as cur:
    cur.execute(f"INSERT INTO {TABLE} (id, name) VALUES (1, 'rolled back')")
    c.rollback()
    cur.execute(f"INSERT INTO {TABLE} (id, name) VALUES (2, 'committed')")
    c.commit()
    psycopg2.extras.execute_values(cur, f"INSERT INTO {TABLE} (id, name) VALUES %s", [(i, f"batch {i}") for i in range(1000, 1050)])
    psycopg2.extras.execute_batch(cur, f"INSERT INTO {TABLE} (id, name) VALUES (%s, %s)", [(i, f"batch {i}") for i in range(1050, 1100)])
    c.commit()

with c, c.cursor() as cur:
    cur.execute("SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
    assert sum(len(r[0]) for r in cur.fetchall()) == 5000000

# A cursor on the server.
with c, c.cursor("on_the_server") as cur:
    cur.itersize = 500
    cur.execute("SELECT n FROM generate_series(1, 2000) n")
    assert sum(r[0] for r in cur) == 2001000

COPY = "".join(f"{i}\tcopied {i}\n" for i in range(3000, 4000))
with c, c.cursor() as cur:
    cur.copy_expert(f"COPY {TABLE} (id, name) FROM STDIN", io.StringIO(COPY))
    out = io.StringIO()
    cur.copy_expert(f"COPY (SELECT id, name FROM {TABLE} WHERE id BETWEEN 3000 AND 3999 ORDER BY id) TO STDOUT", out)
    assert out.getvalue() == COPY

# A large object, by libpq's own function calls.
with c:
    o = c.lobject(0, "wb")
    o.write(b"large \x00" * 1000)
    o.close()
    o = c.lobject(o.oid, "rb")
    assert o.read() == b"large \x00" * 1000
    o.unlink()

# Another thread cancels what it sees at work.
watcher = connect()
watcher.autocommit = True


def cancel():
    with watcher.cursor() as cur:
        while True:
            cur.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = current_user")
            if cur.fetchone():
                break
    c.cancel()


thread = threading.Thread(target=cancel)
with c.cursor() as cur:
    thread.start()
    try:
        cur.execute("SELECT pg_sleep(60)")
        raise AssertionError("it slept")
    except psycopg2.errors.QueryCanceled:
        c.rollback()
    thread.join()
    cur.execute("LISTEN to_the_driver; NOTIFY to_the_driver, 'grüße'")
    c.commit()
    c.poll()
    assert [(n.channel, n.payload) for n in c.notifies] == [("to_the_driver", "grüße")]
watcher.close()
c.close()
print("ok")
