-- +goose Up
-- What is to be told to people, in the order in which it happened. A row goes when every destination has it,
-- or when it is too old to be of use.
CREATE TABLE notices (
  n       INTEGER PRIMARY KEY AUTOINCREMENT,
  id      TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  doc     BLOB NOT NULL -- store.Notice
);

-- How far each destination has come: everything up to n is told, or given up.
CREATE TABLE destinations (
  name  TEXT PRIMARY KEY,
  n     INTEGER NOT NULL,
  tries INTEGER NOT NULL, -- of the notice behind n
  due   INTEGER NOT NULL  -- not before
) WITHOUT ROWID;

-- Links to decision pages, each good for one person.
CREATE TABLE links (
  hash    BLOB PRIMARY KEY, -- SHA-256 of the link's token; never the token
  request TEXT NOT NULL,
  expires INTEGER NOT NULL,
  used    INTEGER NOT NULL,
  person  TEXT NOT NULL     -- auth.Identity.Key of who used it
) WITHOUT ROWID;
CREATE INDEX links_expires ON links (expires);
