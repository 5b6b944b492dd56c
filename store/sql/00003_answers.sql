-- +goose Up
-- What was answered to calls that bear a key of their caller's, so that a call made twice acts once.
CREATE TABLE answers (
  key     BLOB PRIMARY KEY,  -- SHA-256 of the caller and their key
  asked   BLOB NOT NULL,     -- SHA-256 of what was called
  created INTEGER NOT NULL,
  status  INTEGER NOT NULL,  -- 0: not answered yet, or the process ended before it was
  body    BLOB
) WITHOUT ROWID;
CREATE INDEX answers_created ON answers (created);
