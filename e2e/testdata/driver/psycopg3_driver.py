"""What psycopg 3 does: parameters apart from the text, prepared statements, pipelines, copies."""

import datetime
import decimal
import os
import threading
import uuid

import psycopg
from psycopg.types.json import Jsonb, set_json_dumps

TABLE = os.environ["DB_TABLE"]
CA = os.environ.get("DB_CA")
set_json_dumps(lambda v: '{"a": [1, "ü"]}')


def connect(**more):
    tls = {"sslmode": "verify-full", "sslrootcert": CA} if CA else {"sslmode": "disable"}
    return psycopg.connect(
        host=os.environ["DB_HOST"], port=os.environ["DB_PORT"], user=os.environ["DB_USER"],
        password=os.environ["DB_PASSWORD"], dbname=os.environ["DB_NAME"], connect_timeout=20,
        options="-c TimeZone=UTC", **tls, **more)


VALUES = [
    -42, 9223372036854775807, decimal.Decimal("12345678901234.567890"), 0.1, True, "Grüße, \"O'Hara\" \\ 世界 🎈",
    b"\x00\xff'\"\\\n", None, datetime.datetime(2026, 2, 28, 23, 59, 58, 123456, datetime.timezone.utc),
    datetime.date(2026, 2, 28), datetime.time(12, 34, 56), uuid.UUID("6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01"),
    Jsonb({}), ["plain", "two words", 'quo"te', None, "ü,"], [1, -2, 3],
]
COLUMNS = "(id, big, price, ratio, flag, name, data, nothing, moment, day, clock, mark, doc, tags, numbers)"

c = connect(autocommit=True)
with c.cursor() as cur:
    # Binary parameters where the driver has them.
    cur.execute(f"INSERT INTO {TABLE} {COLUMNS} VALUES ({', '.join(['%b'] * 15)})", VALUES)
    for _ in range(3):
        cur.execute(f"SELECT * FROM {TABLE} WHERE id = %s", (-42,), prepare=True)
        row = list(cur.fetchone())
        want = VALUES[:12] + [{"a": [1, "ü"]}] + VALUES[13:]
        assert row == want, row
    # The same in text.
    cur.execute(f"SELECT %t::int8, %t::numeric, %t::timestamptz, %t::text[]", (7, VALUES[2], VALUES[8], VALUES[13]))
    assert cur.fetchone() == (7, VALUES[2], VALUES[8], VALUES[13])

    cur.execute("SELECT n FROM generate_series(1, 1000) n")
    assert sum(r[0] for r in cur) == 500500
    try:
        cur.execute("SELECT * FROM there_is_no_such_table")
        raise AssertionError("no error")
    except psycopg.errors.UndefinedTable as e:
        assert e.diag.statement_position == "15", e

try:
    with c.transaction():
        c.execute(f"INSERT INTO {TABLE} (id, name) VALUES (%s, %s)", (1, "rolled back"))
        raise psycopg.Rollback()
finally:
    with c.transaction():
        c.execute(f"INSERT INTO {TABLE} (id, name) VALUES (%s, %s)", (2, "committed"))

with c.cursor() as cur: # it pipelines these by itself
    cur.executemany(f"INSERT INTO {TABLE} (id, name) VALUES (%s, %s)", [(i, f"batch {i}") for i in range(1000, 1100)])

# Many under way at once, with an error amid them.
with c.pipeline() as p:
    answers = [c.execute("SELECT %s::int4 + 0", (i,)) for i in range(30)]
    p.sync()
    for i, a in enumerate(answers):
        assert a.fetchone() == (i,)
try:
    with c.pipeline():
        c.execute("SELECT 1/0")
        c.execute("SELECT 'never looked at'")
    raise AssertionError("no error")
except psycopg.errors.DivisionByZero:
    pass

with c.cursor() as cur: # row by row
    assert sum(len(r[0]) for r in cur.stream("SELECT repeat('x', 1000) FROM generate_series(1, 5000)")) == 5000000

COPY = "".join(f"{i}\tcopied {i}\n" for i in range(3000, 4000))
with c.cursor() as cur:
    with cur.copy(f"COPY {TABLE} (id, name) FROM STDIN") as copy:
        copy.write(COPY)
    with cur.copy(f"COPY (SELECT id, name FROM {TABLE} WHERE id BETWEEN 3000 AND 3999 ORDER BY id) TO STDOUT") as copy:
        assert b"".join(copy) == COPY.encode()
    cur.execute(f"DELETE FROM {TABLE} WHERE id >= 3000")
    with cur.copy(f"COPY {TABLE} (id, name) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        for i in range(3000, 4000):
            copy.write_row((i, f"copied {i}"))
    # A copy that the client gives up.
    try:
        with cur.copy(f"COPY {TABLE} (id, name) FROM STDIN") as copy:
            copy.write("5000\tgiven up\n")
            raise KeyError("given up")
    except psycopg.errors.QueryCanceled as e:
        assert "given up" in str(e)

# Another thread cancels what it sees at work.
watcher = connect(autocommit=True)


def cancel():
    while not watcher.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = current_user").fetchone():
        pass
    c.cancel()


thread = threading.Thread(target=cancel)
thread.start()
try:
    c.execute("SELECT pg_sleep(60)")
    raise AssertionError("it slept")
except psycopg.errors.QueryCanceled:
    pass
thread.join()

notes = []
c.add_notify_handler(lambda n: notes.append((n.channel, n.payload)))
c.execute("LISTEN to_the_driver")
c.execute("NOTIFY to_the_driver, 'grüße'")
while not notes:
    c.execute("SELECT 5")
assert notes == [("to_the_driver", "grüße")], notes
watcher.close()
c.close()
print("ok")
