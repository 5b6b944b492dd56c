package store

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// A key that was kept is known after a restart, answered or not, and forgotten when nobody needs it any more.
func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	key, asked := []byte("key"), []byte("asked")
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir)
		begin := func(first bool, status int, body string) {
			t.Helper()
			was, isFirst, err := s.BeginAnswer(t.Context(), key, asked)
			if err != nil || isFirst != first || was.Status != status || string(was.Body) != body || !first && !bytes.Equal(was.Asked, asked) {
				t.Fatalf("first %v, %+v, %v", isFirst, was, err)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		begin(true, 0, "")
		must(s.Close())
		s = open(t, dir)
		begin(false, 0, "")
		must(s.PutAnswer(t.Context(), key, 201, []byte("body")))
		time.Sleep(AnswersKept)
		begin(false, 201, "body")
		must(s.DropAnswer(t.Context(), key))
		begin(true, 0, "")
		time.Sleep(AnswersKept + time.Second)
		begin(true, 0, "")
		must(s.Close())
	})
}
