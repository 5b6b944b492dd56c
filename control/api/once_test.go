package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/curfewdb/curfew/control/api"
)

// remembered is the smallest api.Answers.
type remembered struct {
	mu   sync.Mutex // guards what follows
	all  map[string]api.Answered
	fail error
}

func (r *remembered) Begin(_ context.Context, key, asked []byte) (api.Answered, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.all[string(key)]; ok || r.fail != nil {
		return was, false, r.fail
	}
	r.all[string(key)] = api.Answered{Asked: asked}
	return api.Answered{}, true, nil
}

func (r *remembered) Put(_ context.Context, key []byte, status int, body []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.all[string(key)]
	was.Status, was.Body = status, append([]byte(nil), body...)
	r.all[string(key)] = was
	return nil
}

func (r *remembered) Drop(_ context.Context, key []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, string(key))
	return nil
}

type keyed struct {
	*fake
	memory *remembered
	server *httptest.Server
	t      *testing.T
}

func serveKeyed(t *testing.T) *keyed {
	k := &keyed{fake: newFake(), memory: &remembered{all: map[string]api.Answered{}}, t: t}
	k.server = httptest.NewServer(api.New(api.Config{Version: "test", Logins: k.fake, Requests: k.fake, Grants: k.fake, Sessions: k.fake,
		Evidence: k.fake, Foresight: k.fake, Answers: k.memory, Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(k.server.Close)
	return k
}

const wish = `{"target":"orders","level":"writer","duration":"30m","reason":"x"}`

func (k *keyed) post(path, token, key, body string) answer {
	k.t.Helper()
	req, err := http.NewRequestWithContext(k.t.Context(), http.MethodPost, k.server.URL+path, strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := k.server.Client().Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, res.Body); err != nil {
		k.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b.String()}
}

func (k *keyed) acted() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.calls)
}

// A call that is sent again with its key is answered as it was, and acts no second time; with another key,
// or none, it is another call.
func TestACallWithAKeyActsOnce(t *testing.T) {
	k := serveKeyed(t)
	first := k.post("/v1/requests", "alice", "k1", wish)
	again := k.post("/v1/requests", "alice", "k1", wish)
	if first.status != http.StatusCreated || again.status != first.status || again.body != first.body || k.acted() != 1 {
		t.Errorf("%d %s, then %d %s; it acted %d times", first.status, first.body, again.status, again.body, k.acted())
	}
	if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" {
		t.Error("which of them was a repetition?")
	}
	if k.post("/v1/requests", "alice", "k2", wish); k.acted() != 2 {
		t.Error("another key is the same call")
	}
	if k.post("/v1/requests", "alice", "", wish); k.acted() != 3 {
		t.Error("a call without a key was taken for an old one")
	}
}

func TestAKeyIsForOneCall(t *testing.T) {
	k := serveKeyed(t)
	k.post("/v1/requests", "alice", "k1", wish)
	for name, a := range map[string]answer{
		"another body": k.post("/v1/requests", "alice", "k1", strings.Replace(wish, "30m", "40m", 1)),
		"another path": k.post("/v1/requests/r1/approve", "alice", "k1", `{}`),
	} {
		if p := problemOf(t, a); p.Code != api.CodeConflict || !strings.Contains(p.Detail, "another call") {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if k.acted() != 1 {
		t.Errorf("%d calls acted", k.acted())
	}
}

// What was refused has changed nothing: it may be tried again under its key.
func TestARefusalIsNotKept(t *testing.T) {
	k := serveKeyed(t)
	k.fail = errors.New("broken")
	if a := k.post("/v1/requests", "alice", "k1", wish); a.status != http.StatusInternalServerError {
		t.Fatal(a.status)
	}
	k.fail = nil
	if a := k.post("/v1/requests", "alice", "k1", wish); a.status != http.StatusCreated {
		t.Errorf("%d: %s", a.status, a.body)
	}
}

// A body that breaks off is the client's doing: it reads so, nothing is done, and nothing is counted as an error of the server's.
func TestABodyThatBreaksOff(t *testing.T) {
	for name, header := range map[string]string{"plain": "", "with a key": "Idempotency-Key: k1\r\n"} {
		t.Run(name, func(t *testing.T) {
			k := serveKeyed(t)
			c, err := net.Dial("tcp", k.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "POST /v1/requests HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Type: application/json\r\n%sContent-Length: 900\r\n\r\n{", header)
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var p api.Problem
			if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Code != api.CodeInvalid || !strings.Contains(p.Detail, "broke off") || res.StatusCode >= 500 {
				t.Errorf("%s: %+v, %v", res.Status, p, err)
			}
			if k.acted() != 0 {
				t.Error("half a request was acted on")
			}
		})
	}
}

// A process that ended in the middle of a call does not know whether it acted, and says so.
func TestAnUnknownOutcome(t *testing.T) {
	k := serveKeyed(t)
	k.post("/v1/requests", "alice", "k1", wish)
	for key, was := range k.memory.all {
		k.memory.all[key] = api.Answered{Asked: was.Asked}
	}
	if p := problemOf(t, k.post("/v1/requests", "alice", "k1", wish)); p.Code != api.CodeConflict || !strings.Contains(p.Detail, "not known") {
		t.Errorf("%+v", p)
	}
	k.memory.fail = errors.New("disk full")
	if p := problemOf(t, k.post("/v1/requests", "alice", "k3", wish)); p.Code != api.CodeInternal {
		t.Errorf("%+v", p)
	}
	if k.acted() != 1 {
		t.Error("a call acted whose key could not be kept")
	}
}

// Two at one instant: one acts, the other is told to wait.
func TestTwoCallsWithOneKey(t *testing.T) {
	k := serveKeyed(t)
	const n = 8
	answers := make(chan answer, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { answers <- k.post("/v1/requests", "alice", "k1", wish) })
	}
	wg.Wait()
	close(answers)
	for a := range answers {
		if a.status != http.StatusCreated && a.status != http.StatusConflict {
			t.Errorf("%d: %s", a.status, a.body)
		}
	}
	if k.acted() != 1 {
		t.Errorf("it acted %d times", k.acted())
	}
}

func TestBadKeys(t *testing.T) {
	k := serveKeyed(t)
	for name, a := range map[string]answer{
		"too long":   k.post("/v1/requests", "alice", strings.Repeat("k", 256), wish),
		"with space": k.post("/v1/requests", "alice", "k 1", wish),
		"a password": k.post("/v1/grants/g1/password", "alice", "k1", ""),
	} {
		if p := problemOf(t, a); p.Code != api.CodeInvalid {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if a := k.post("/v1/requests", "mallory", "k1", wish); a.status != http.StatusUnauthorized {
		t.Errorf("a stranger's key: %d", a.status)
	}
	if len(k.memory.all) != 0 || k.acted() != 0 {
		t.Errorf("%d keys kept, %d calls", len(k.memory.all), k.acted())
	}
}
