// What mysql2 does with prepared statements, text queries, errors and streams.
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const mysql = require('mysql2/promise');

const { DB_HOST, DB_PORT, DB_USER, DB_PASSWORD, DB_NAME, DB_CA, DB_TABLE } = process.env;

async function main() {
  const c = await mysql.createConnection({
    host: DB_HOST, port: Number(DB_PORT), user: DB_USER, password: DB_PASSWORD, database: DB_NAME,
    ssl: DB_CA ? { ca: fs.readFileSync(DB_CA) } : undefined,
    timezone: 'Z', supportBigNumbers: true, bigNumberStrings: true, dateStrings: true, multipleStatements: true,
  });
  const blob = Buffer.from([0, 0xff, 0x27, 0x22, 0x5c, 0x0a]);
  const values = [-42, '18446744073709551615', '12345678901234.567890', 0.1, 'Grüße, 世界 🎈', blob, null,
    '2026-02-28 23:59:58.123456', '2026-02-28', '12:34:56'];
  const [done] = await c.execute(`INSERT INTO ${DB_TABLE} (id, big, price, ratio, name, data, nothing, moment, day, clock)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, values);
  assert.equal(done.affectedRows, 1);
  for (let i = 0; i < 3; i++) {
    const [[row]] = await c.execute(`SELECT * FROM ${DB_TABLE} WHERE id = ?`, [-42]);
    assert.deepEqual(Object.values(row), values);
  }
  // A Date, a boolean, a bigint.
  await c.execute(`INSERT INTO ${DB_TABLE} (id, moment, big) VALUES (?, ?, ?)`, [true, new Date('2026-03-01T12:00:00.500Z'), 7n]);

  const [rows] = await c.query('SELECT seq FROM seq_1_to_1000');
  assert.equal(rows.reduce((sum, r) => sum + Number(r.seq), 0), 500500);

  await assert.rejects(c.query('SELECT * FROM there_is_no_such_table'), { errno: 1146, sqlState: '42S02' });

  await c.beginTransaction();
  await c.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES (?, ?)`, [1, 'rolled back']);
  await c.rollback();
  await c.beginTransaction();
  await c.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES (?, ?)`, [2, 'committed']);
  await c.commit();

  const [big] = await c.query("SELECT REPEAT('x', 1000) AS x FROM seq_1_to_5000");
  assert.equal(big.reduce((sum, r) => sum + r.x.length, 0), 5000000);

  const [several] = await c.query("SELECT 1 AS a; DO 2; SELECT 3 AS b UNION SELECT 4");
  assert.equal(several[2][1].b, 4);

  await c.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES ?`, [Array.from({ length: 100 }, (_, i) => [1000 + i, `bulk ${i}`])]);

  // Many at once on one connection, each with an answer of its own.
  const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => c.execute('SELECT ? + 0 AS n', [i])));
  answers.forEach(([[row]], i) => assert.equal(Number(row.n), i));
  c.unprepare('SELECT ? + 0 AS n');

  await c.changeUser({ user: 'somebody' }).then(() => assert.fail('it changed the user'), (e) => assert.match(e.message, /\S/));
  const [[still]] = await c.query('SELECT 5 AS five');
  assert.equal(still.five, 5);
  await c.end();
  console.log('ok');
}

main().catch((e) => { console.error(e); process.exit(1); });
