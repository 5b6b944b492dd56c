package harness

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Notice is what Curfew tells a webhook, as far as the stories look at it.
type Notice struct {
	ID   string
	Type string
	Data struct {
		Title, Request, Status, Target, Level, Duration, Reason, Rule, Grant, By, Text, Link string

		Person struct{ Subject, Email, ACR string }
	}
}

// Notices is somebody's webhook: it keeps what Curfew tells, and takes nothing that is not signed.
type Notices struct {
	URL    string
	server *httptest.Server
	dir    string // of Curfew's data, where the signatures' secret lies

	mu      sync.Mutex // guards the rest
	away    bool
	refused int
	events  []Notice
	ids     map[string]bool
	errs    []error
}

// Listening starts a webhook that Curfew tells when it is started with it.
func (c *Curfew) Listening() *Notices {
	n := Hook(c.Dir)
	c.Webhook = n.URL
	return n
}

// Hook starts a webhook whose signatures are made with the secret in a directory.
func Hook(dir string) *Notices {
	n := &Notices{dir: dir, ids: map[string]bool{}}
	n.server = httptest.NewServer(n)
	n.URL = n.server.URL + "/"
	return n
}

// Refuse has it answer that it can't take anything now, or take it again.
func (n *Notices) Refuse(yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = yes
}

// Refused counts what it has not taken.
func (n *Notices) Refused() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused
}

// All gives every message so far.
func (n *Notices) All() []Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.events)
}

// Close ends the webhook, and says what was wrong with what it was told.
func (n *Notices) Close() error {
	n.server.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(n.errs...)
}

// ServeHTTP checks a message as docs/OPERATIONS.md says: the signature over id, time and body, the time, and
// whether the id is new.
func (n *Notices) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var e Notice
	if err == nil {
		err = n.check(r.Header, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.away:
		n.refused++
		w.WriteHeader(http.StatusServiceUnavailable)
	case err != nil:
		n.errs = append(n.errs, fmt.Errorf("webhook: %w", err))
		w.WriteHeader(http.StatusUnauthorized)
	case !n.ids[e.ID+e.Data.Link]: // one message for each destination
		n.ids[e.ID+e.Data.Link] = true
		n.events = append(n.events, e)
	}
}

func (n *Notices) check(h http.Header, body []byte) error {
	secret, err := os.ReadFile(filepath.Join(n.dir, "webhook.secret"))
	if err != nil {
		return err
	}
	at := h.Get("webhook-timestamp")
	m := hmac.New(sha256.New, []byte(strings.TrimSpace(string(secret))))
	fmt.Fprintf(m, "%s.%s.%s", h.Get("webhook-id"), at, body)
	if want := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil)); !hmac.Equal([]byte(want), []byte(h.Get("webhook-signature"))) {
		return errors.New("the signature is wrong")
	}
	var sec int64
	if _, err := fmt.Sscan(at, &sec); err != nil || time.Since(time.Unix(sec, 0)).Abs() > 5*time.Minute {
		return fmt.Errorf("%q is not now", at)
	}
	return nil
}

// Await gives the first message of a kind about a request, when it has come.
func (n *Notices) Await(ctx context.Context, kind, request string) (e Notice, err error) {
	err = Eventually(ctx, 20*time.Second, func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, e = range n.events {
			if e.Type == kind && e.Data.Request == request {
				return nil
			}
		}
		return fmt.Errorf("nobody was told of %s %s", kind, request)
	})
	return e, err
}
