-- +goose Up
-- Times are nanoseconds since 1970 UTC, 0 where there is none. What is searched has a column; the
-- whole value is JSON in doc.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- The ledger: one line of JSON each, exactly the bytes that are hashed.
CREATE TABLE entries (
  n    INTEGER PRIMARY KEY,
  line BLOB NOT NULL
);

-- The latest signed checkpoint, moved in the transaction that appends.
CREATE TABLE head (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  size       INTEGER NOT NULL,
  root       TEXT NOT NULL,
  checkpoint BLOB NOT NULL
);

CREATE TABLE requests (
  id      TEXT PRIMARY KEY,
  status  TEXT NOT NULL,
  person  TEXT NOT NULL, -- auth.Identity.Key
  target  TEXT NOT NULL,
  created INTEGER NOT NULL,
  doc     BLOB NOT NULL  -- policy.Request
) WITHOUT ROWID;
CREATE INDEX requests_status ON requests (status, created);
CREATE INDEX requests_person ON requests (person, created);

CREATE TABLE grants (
  id       TEXT PRIMARY KEY,
  person   TEXT NOT NULL,
  target   TEXT NOT NULL,
  starts   INTEGER NOT NULL,
  ends     INTEGER NOT NULL,
  ended    INTEGER NOT NULL,
  verifier BLOB,          -- what Engine.Enrol made of the grant password; never the password
  doc      BLOB NOT NULL  -- policy.Grant
) WITHOUT ROWID;
CREATE INDEX grants_live ON grants (starts) WHERE ended = 0;
CREATE INDEX grants_person ON grants (person, starts);

CREATE TABLE logins (
  hash      BLOB PRIMARY KEY, -- SHA-256 of the session token; never the token
  person    TEXT NOT NULL,
  created   INTEGER NOT NULL,
  expires   INTEGER NOT NULL,
  refreshed INTEGER NOT NULL,
  refresh   BLOB,             -- the provider's refresh token, sealed
  doc       BLOB NOT NULL     -- auth.Identity
) WITHOUT ROWID;
CREATE INDEX logins_person ON logins (person);

-- Accounts that may exist in a database. A row goes only when its account is proven gone.
CREATE TABLE intents (
  grant_id TEXT PRIMARY KEY,
  cut      INTEGER NOT NULL DEFAULT 0,
  created  INTEGER NOT NULL,
  doc      BLOB NOT NULL  -- ledger.AccountIntended
) WITHOUT ROWID;

CREATE TABLE sessions (
  id       TEXT PRIMARY KEY,
  grant_id TEXT NOT NULL,
  person   TEXT NOT NULL,
  target   TEXT NOT NULL,
  began    INTEGER NOT NULL,
  ended    INTEGER NOT NULL,
  doc      BLOB NOT NULL  -- store.Session
) WITHOUT ROWID;
CREATE INDEX sessions_open ON sessions (began) WHERE ended = 0;
CREATE INDEX sessions_grant ON sessions (grant_id, began);
CREATE INDEX sessions_person ON sessions (person, began);
