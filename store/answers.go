package store

import (
	"context"
	"errors"
	"time"
)

// AnswersKept is for how long the answer to a call is known.
const AnswersKept = 24 * time.Hour

// Answer is what was answered to a call that bore a key.
type Answer struct {
	Asked  []byte // digest of the call
	Status int    // 0: it has not been answered
	Body   []byte
}

// BeginAnswer keeps a key for a call, if nobody has; otherwise it gives what is known under the key, and
// the call must not be made again. Keys are forgotten after AnswersKept.
func (s *Store) BeginAnswer(ctx context.Context, key, asked []byte) (was Answer, first bool, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if err := tx.exec(`DELETE FROM answers WHERE created < ?`, nanos(tx.now.Add(-AnswersKept))); err != nil {
			return err
		}
		err := found(tx.row(`SELECT asked, status, body FROM answers WHERE key = ?`, key).Scan(&was.Asked, &was.Status, &was.Body), "answer")
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		first = true
		return tx.exec(`INSERT INTO answers (key, asked, created, status) VALUES (?, ?, ?, 0)`, key, asked, nanos(tx.now))
	})
	return was, first && err == nil, err
}

// PutAnswer keeps what was answered.
func (s *Store) PutAnswer(ctx context.Context, key []byte, status int, body []byte) error {
	return s.Update(ctx, func(tx *Tx) error {
		return tx.change("answer", `UPDATE answers SET status = ?, body = ? WHERE key = ?`, status, body, key)
	})
}

// DropAnswer gives a key free again: the call changed nothing.
func (s *Store) DropAnswer(ctx context.Context, key []byte) error {
	return s.Update(ctx, func(tx *Tx) error { return tx.exec(`DELETE FROM answers WHERE key = ?`, key) })
}
