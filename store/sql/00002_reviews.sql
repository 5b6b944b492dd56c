-- +goose Up
-- What somebody else must look at: a session, or everything that was done under a break-glass grant.
CREATE TABLE reviews (
  id       TEXT PRIMARY KEY, -- the session's, or the grant's
  grant_id TEXT NOT NULL,
  person   TEXT NOT NULL,    -- auth.Identity.Key of whose doing it is
  target   TEXT NOT NULL,
  made     INTEGER NOT NULL,
  due      INTEGER NOT NULL,
  alerted  INTEGER NOT NULL, -- 1: people were told that it is overdue
  done     INTEGER NOT NULL, -- 0: it is still to be done
  doc      BLOB NOT NULL     -- store.Review
) WITHOUT ROWID;
CREATE INDEX reviews_open ON reviews (due) WHERE done = 0;
CREATE INDEX reviews_person ON reviews (person, made);
