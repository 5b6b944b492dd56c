// What mariadb's connector does: pipelined commands, execute, batches by COM_STMT_BULK_EXECUTE, streams.
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const { Readable } = require('node:stream');
const mariadb = require('mariadb');

const { DB_HOST, DB_PORT, DB_USER, DB_PASSWORD, DB_NAME, DB_CA, DB_TABLE } = process.env;

async function main() {
  const c = await mariadb.createConnection({
    host: DB_HOST, port: Number(DB_PORT), user: DB_USER, password: DB_PASSWORD, database: DB_NAME,
    ssl: DB_CA ? { ca: fs.readFileSync(DB_CA) } : undefined, pipelining: true, allowPublicKeyRetrieval: true,
    timezone: 'Z', dateStrings: true, multipleStatements: true, bulk: true,
  });
  const blob = Buffer.from([0, 0xff, 0x27, 0x22, 0x5c, 0x0a]);
  const values = [-42, 18446744073709551615n, '12345678901234.567890', 0.1, 'Grüße, 世界 🎈', blob, null,
    '2026-02-28 23:59:58.123456', '2026-02-28', '12:34:56'];
  const done = await c.execute(`INSERT INTO ${DB_TABLE} (id, big, price, ratio, name, data, nothing, moment, day, clock)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, values);
  assert.equal(done.affectedRows, 1);
  for (let i = 0; i < 3; i++) {
    const [row] = await c.execute(`SELECT * FROM ${DB_TABLE} WHERE id = ?`, [-42]);
    assert.deepEqual(Object.values(row), values);
  }
  await c.execute(`INSERT INTO ${DB_TABLE} (id, moment, big) VALUES (?, ?, ?)`, [true, new Date('2026-03-01T12:00:00.500Z'), 7n]);

  const rows = await c.query('SELECT seq FROM seq_1_to_1000');
  assert.equal(rows.reduce((sum, r) => sum + Number(r.seq), 0), 500500);

  await assert.rejects(c.query('SELECT * FROM there_is_no_such_table'), { errno: 1146, sqlState: '42S02' });

  await c.beginTransaction();
  await c.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES (?, ?)`, [1, 'rolled back']);
  await c.rollback();
  await c.beginTransaction();
  await c.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES (?, ?)`, [2, 'committed']);
  await c.commit();

  let bytes = 0;
  for await (const row of c.queryStream("SELECT REPEAT('x', 1000) AS x FROM seq_1_to_5000")) bytes += row.x.length;
  assert.equal(bytes, 5000000);

  // Sent one behind the other without waiting; one of them fails, and the others don't.
  const answers = await Promise.allSettled(Array.from({ length: 50 }, (_, i) =>
    i === 20 ? c.query('SELECT this fails') : i % 2 ? c.query('SELECT ? AS n', [i]) : c.execute('SELECT ? + 0 AS n', [i])));
  answers.forEach((a, i) => {
    if (i === 20) assert.equal(a.reason.errno, 1054);
    else assert.equal(Number(a.value[0].n), i);
  });

  const batch = await c.batch(`INSERT INTO ${DB_TABLE} (id, name) VALUES (?, ?)`,
    Array.from({ length: 100 }, (_, i) => [1000 + i, i === 50 ? null : `bulk ${i}`]));
  // A server that has no bulk execution answers each of them.
  assert.equal([].concat(batch).reduce((sum, r) => sum + r.affectedRows, 0), 100);
  await assert.rejects(c.batch(`INSERT INTO ${DB_TABLE} (id, day) VALUES (?, ?)`,
    [[2000, '2026-01-01'], [2000, 'a bad day'], [2000, '2026-01-03']]), { errno: 1292 });

  // A stream as a parameter goes out as text or long data.
  await c.query(`INSERT INTO ${DB_TABLE} (id, data) VALUES (?, ?)`, [3, Readable.from([Buffer.from('streamed '), Buffer.from('in parts')])]);

  await c.end();
  console.log('ok');
}

main().catch((e) => { console.error(e); process.exit(1); });
