// What pg does: parameters as text, named prepared statements, a pipeline, cursors, copies.
'use strict';
const assert = require('assert');
const fs = require('fs');
const { pipeline } = require('stream/promises');
const { Client } = require('pg');
const Cursor = require('pg-cursor');
const { from, to } = require('pg-copy-streams');

const { DB_HOST, DB_PORT, DB_USER, DB_PASSWORD, DB_NAME, DB_CA, DB_TABLE } = process.env;

async function connect(more) {
  const c = new Client({
    host: DB_HOST, port: Number(DB_PORT), user: DB_USER, password: DB_PASSWORD, database: DB_NAME,
    ssl: DB_CA ? { ca: fs.readFileSync(DB_CA), rejectUnauthorized: true } : false, enableChannelBinding: true,
    options: '-c TimeZone=UTC', ...more,
  });
  await c.connect();
  return c;
}

const name = 'Grüße, "O\'Hara" \\ 世界 🎈';
const data = Buffer.from([0, 0xff, 0x27, 0x22, 0x5c, 0x0a]);
const moment = '2026-02-28 23:59:58.123456+00';
const tags = ['plain', 'two words', 'quo"te', null, 'ü,'];

async function typed(c) {
  const values = [-42, 9223372036854775807n, '12345678901234.567890', 0.1, true, name, data, null, moment, '2026-02-28', '12:34:56',
    '6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01', { a: [1, 'ü'] }, tags, [1, -2, 3]];
  const places = values.map((_, i) => `$${i + 1}`).join(', ');
  await c.query(`INSERT INTO ${DB_TABLE} (id, big, price, ratio, flag, name, data, nothing, moment, day, clock, mark, doc, tags, numbers) VALUES (${places})`, values);
  for (let i = 0; i < 3; i++) {
    const { rows: [row] } = await c.query({ name: 'one', text: `SELECT * FROM ${DB_TABLE} WHERE id = $1`, values: [-42] });
    assert.equal(row.big, '9223372036854775807');
    assert.equal(row.price, '12345678901234.567890');
    assert.equal(row.ratio, 0.1);
    assert.equal(row.name, name);
    assert.deepEqual(row.data, data);
    assert.equal(row.nothing, null);
    assert.equal(row.moment.getTime(), Date.parse('2026-02-28T23:59:58.123Z'));
    assert.deepEqual(row.doc, { a: [1, 'ü'] });
    assert.deepEqual(row.tags, tags);
  }
}

async function main() {
  const c = await connect();
  await typed(c);

  const { rows } = await c.query('SELECT n FROM generate_series(1, 1000) n');
  assert.equal(rows.reduce((sum, r) => sum + r.n, 0), 500500);
  await assert.rejects(c.query('SELECT * FROM there_is_no_such_table'), { code: '42P01', position: '15' });

  await c.query('BEGIN');
  await c.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES ($1, $2)`, [1, 'rolled back']);
  await c.query('ROLLBACK');
  await c.query('BEGIN');
  await c.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES ($1, $2)`, [2, 'committed']);
  await c.query('COMMIT');

  const { rows: big } = await c.query("SELECT repeat('x', 1000) AS x FROM generate_series(1, 5000)");
  assert.equal(big.reduce((sum, r) => sum + r.x.length, 0), 5000000);

  const several = await c.query('SELECT 1 AS a; SELECT 2 AS b UNION ALL SELECT 3');
  assert.equal(several[1].rows[1].b, 3);

  // A portal that is read in pieces, and left before its end.
  const cursor = c.query(new Cursor('SELECT m FROM generate_series(1, $1::int) m', [2000]));
  assert.equal((await cursor.read(700)).length, 700);
  assert.equal((await cursor.read(700))[699].m, 1400);
  await cursor.close();

  let text = '';
  for (let id = 3000; id < 4000; id++) text += `${id}\tcopied ${id}\n`;
  await pipeline([text], c.query(from(`COPY ${DB_TABLE} (id, name) FROM STDIN`)));
  let out = '';
  await pipeline(c.query(to(`COPY (SELECT id, name FROM ${DB_TABLE} WHERE id BETWEEN 3000 AND 3999 ORDER BY id) TO STDOUT`)),
    async function (chunks) { for await (const chunk of chunks) out += chunk; });
  assert.equal(out, text);

  const heard = new Promise((resolve) => c.once('notification', resolve));
  await c.query('LISTEN to_the_driver');
  await c.query("NOTIFY to_the_driver, 'grüße'");
  assert.equal((await heard).payload, 'grüße');
  await c.end();

  // Many at once on one connection, one of which fails.
  const p = await connect({ pipeline: true });
  const answers = await Promise.allSettled([
    ...Array.from({ length: 100 }, (_, i) => p.query(`INSERT INTO ${DB_TABLE} (id, name) VALUES ($1, $2)`, [1000 + i, `batch ${1000 + i}`])),
    p.query('SELECT 1/$1::int', [0]),
    ...Array.from({ length: 30 }, (_, i) => p.query({ name: 'add', text: 'SELECT $1::int4 + 0 AS n', values: [i] })),
  ]);
  assert.equal(answers[100].reason.code, '22012');
  answers.slice(101).forEach((a, i) => assert.equal(a.value.rows[0].n, i));
  await p.end();

  // Its timeout is the server's.
  const s = await connect({ statement_timeout: 300 });
  await assert.rejects(s.query('SELECT pg_sleep(60)'), { code: '57014' });
  assert.equal((await s.query('SELECT 5 AS five')).rows[0].five, 5);
  await s.end();
  console.log('ok');
}

main().catch((e) => { console.error(e); process.exit(1); });
