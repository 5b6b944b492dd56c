package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

// keyHeader bears a key of the caller's own making: calls with one key act once.
const keyHeader = "Idempotency-Key"

// Answers keeps what was answered to calls that bear a key, across restarts.
type Answers interface {
	// Begin keeps the key for a call, or gives what is known of the call that has it; status 0: no answer.
	Begin(ctx context.Context, key, asked []byte) (was Answered, first bool, err error)
	Put(ctx context.Context, key []byte, status int, body []byte) error
	// Drop gives the key free again: the call changed nothing.
	Drop(ctx context.Context, key []byte) error
}

// Answered is what was answered to a call.
type Answered struct {
	Asked  []byte // digest of the call
	Status int
	Body   []byte
}

// calls are those with a key that are being answered now.
type calls struct {
	mu  sync.Mutex // guards now
	now map[[sha256.Size]byte]bool
}

func (c *calls) enter(key [sha256.Size]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now[key] {
		return false
	}
	if c.now == nil {
		c.now = map[[sha256.Size]byte]bool{}
	}
	c.now[key] = true
	return true
}

func (c *calls) leave(key [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.now, key)
}

// once lets a POST that bears a key act once, however often it is sent: the same call is answered as it was
// the first time. Only what succeeded is kept, because nothing else has changed anything.
func (s *server) once(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(keyHeader)
		if key == "" || s.Answers == nil || r.Method != http.MethodPost || strings.HasPrefix(r.URL.Path, "/v1/login/") {
			next.ServeHTTP(w, r)
			return
		}
		if p := keyProblem(key, r.URL.Path); p != nil {
			writeProblem(w, p)
			return
		}
		token, ok := bearerToken(r.Header.Get("Authorization"))
		if !ok {
			next.ServeHTTP(w, r) // which says so
			return
		}
		who, err := s.Logins.Whoami(r.Context(), token)
		if err != nil {
			next.ServeHTTP(w, r) // which says so, and counts it
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			p := NewProblem(CodeTooLarge, "the body is too large", "send less")
			if errors.As(err, new(brokenOff)) {
				p = NewProblem(CodeInvalid, halfBody, sendAgain)
			}
			writeProblem(w, p.Because(err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		asked := digest(r.Method, r.URL.RequestURI(), string(body))
		s.answerOnce(w, r, next, digest(who.Key(), key), asked)
	})
}

// digest is over all the parts, none of which can be taken for two.
func digest(parts ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		part := sha256.Sum256([]byte(p))
		h.Write(part[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func keyProblem(key, path string) *Problem {
	switch {
	case len(key) > 255 || strings.ContainsFunc(key, func(c rune) bool { return c < 0x21 || c > 0x7e }):
		return NewProblem(CodeInvalid, keyHeader+" must be at most 255 visible ASCII characters", "use a random UUID")
	case strings.HasSuffix(path, "/password"):
		return NewProblem(CodeInvalid, "a password is shown once, so this can't be answered twice", "leave out "+keyHeader+": asking again makes a new password")
	}
	return nil
}

func (s *server) answerOnce(w http.ResponseWriter, r *http.Request, next http.Handler, key, asked [sha256.Size]byte) {
	busy := NewProblem(CodeConflict, "a call with this "+keyHeader+" is being answered", "wait for it, then send this again")
	if !s.calls.enter(key) {
		writeProblem(w, busy)
		return
	}
	defer s.calls.leave(key)
	// What is begun is finished: whether this client waits for it is no part of it.
	ctx := context.WithoutCancel(r.Context())
	was, first, err := s.Answers.Begin(ctx, key[:], asked[:])
	switch {
	case err != nil:
		writeProblem(w, s.explain(ctx, err))
		return
	case !first:
		repeat(w, was, asked)
		return
	}
	keep := &keeping{ResponseWriter: w, status: http.StatusOK}
	answered := false
	defer func() { // also if the handler panics
		if answered && keep.status < 300 {
			err = s.Answers.Put(ctx, key[:], keep.status, keep.body.Bytes())
		} else {
			err = s.Answers.Drop(ctx, key[:])
		}
		if err != nil {
			s.Log.Error("keep what was answered", "error", err)
		}
	}()
	next.ServeHTTP(keep, r)
	answered = true
}

// repeat answers a call that was made before.
func repeat(w http.ResponseWriter, was Answered, asked [sha256.Size]byte) {
	switch {
	case subtle.ConstantTimeCompare(was.Asked, asked[:]) != 1:
		writeProblem(w, NewProblem(CodeConflict, "this "+keyHeader+" was used for another call", "use a new key for each call"))
	case was.Status == 0:
		writeProblem(w, NewProblem(CodeConflict, "Curfew ended while it answered the call with this "+keyHeader+"; whether it took effect is not known",
			"look, for example with curfew requests --mine, and use a new key if it is still needed"))
	default:
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Idempotency-Replayed", "true")
		w.WriteHeader(was.Status)
		_, _ = w.Write(was.Body) // the client has gone, if this fails
	}
}

// keeping hands an answer on and keeps it.
type keeping struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (k *keeping) WriteHeader(status int) {
	k.status = status
	k.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (k *keeping) Write(b []byte) (int, error) {
	k.body.Write(b)
	return k.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (k *keeping) Unwrap() http.ResponseWriter { return k.ResponseWriter }
