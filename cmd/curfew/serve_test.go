package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// Recordings that can't be kept are an alert on the ledger, once for each time, and Curfew is not ready
// until they can be, which takes no restart.
func TestRecorderDegraded(t *testing.T) {
	h := &house{cfg: &config.Config{Node: "n", Data: t.TempDir()}, log: slog.New(slog.DiscardHandler), meters: newMeters(prometheus.NewRegistry())}
	if err := h.openStores(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer h.close()
	begin := func(session string) error {
		w, err := h.library.Create(recorder.Header{Session: session, Grant: "g1", Target: "orders"})
		if err == nil {
			_, err = w.Seal(recorder.End{Code: recorder.EndClient})
		}
		return err
	}
	entries := func() (n int) {
		err := h.store.Entries(t.Context(), 0, func(line []byte) error {
			n += bytes.Count(line, []byte(ledger.TypeRecorderDegraded))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return n
	}
	if h.recorderDegraded(t.Context(), false) || entries() != 0 {
		t.Error("degraded without a reason")
	}
	for n := 1; n <= 2; n++ {
		open := filepath.Join(h.cfg.Data, "recordings", "open")
		if err := os.Rename(open, open+".gone"); err != nil {
			t.Fatal(err)
		}
		if begin("s1") == nil {
			t.Fatal("a recording without a place")
		}
		was := h.recorderDegraded(t.Context(), false)
		if !was || !h.recorderDegraded(t.Context(), was) || entries() != n {
			t.Errorf("time %d: %d entries", n, entries())
		}
		if err := os.Rename(open+".gone", open); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for h.recorderDegraded(t.Context(), true) {
			if time.Now().After(deadline) {
				t.Fatal("the disk is back, and nobody noticed")
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	inTheWay := filepath.Join(h.cfg.Data, "recordings", "open", "s3.jsonl")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if begin("s3") == nil || h.library.Err() == nil || h.recorderDegraded(t.Context(), false) || entries() != 2 {
		t.Error("one recording's trouble is not the disk's")
	}
	if err := begin("s2"); err != nil {
		t.Error(err)
	}
}

// nobody has no grant, so that what it is asked for is made up.
type nobody struct{ protocol.Doorman }

func (nobody) Verifier(context.Context, string) ([]byte, error) { return nil, nil }

// The salt that a name which nobody has is shown stays the same across restarts and is the same at every
// listener, as a grant's is: otherwise a stranger could tell the two apart.
func TestStrangersSaltOutlivesARestart(t *testing.T) {
	data := t.TempDir()
	salt := func() string {
		h := &house{cfg: &config.Config{Node: "n", Data: data}, log: slog.New(slog.DiscardHandler)}
		if _, err := h.openSealer(); err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		front, err := h.front(config.Listener{Engine: "postgres"}, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		go front.Accept(t.Context(), theirs, nobody{})
		ask := func(msg string) string {
			if _, err := ours.Write([]byte(msg)); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 256)
			n, err := ours.Read(answer)
			if err != nil {
				t.Fatal(err)
			}
			return string(answer[:n])
		}
		ask("\x00\x00\x00\x12\x00\x03\x00\x00user\x00gno\x00\x00")
		challenge := ask("p\x00\x00\x00\x22SCRAM-SHA-256\x00\x00\x00\x00\x0cn,,n=,r=abcd")
		_, rest, _ := strings.Cut(challenge, ",s=")
		return rest
	}
	if first, second := salt(), salt(); first == "" || first != second {
		t.Errorf("%q, then %q", first, second)
	}
}

// A listener that the configuration pins to a target is pinned in the proxy, and its front has the target's engine.
func TestListenPins(t *testing.T) {
	h := &house{cfg: &config.Config{API: config.API{Listen: "127.0.0.1:0"}, Listeners: []config.Listener{
		{Engine: "mysql", Target: "shop", Listen: "127.0.0.1:0"}, {Engine: "postgres", Listen: "127.0.0.1:0"},
	}, Targets: map[string]config.Target{"shop": {Engine: "mysql", URL: "mysql://broker@127.0.0.1:1/shop?sslmode=disable"}}},
		log: slog.New(slog.DiscardHandler), certs: &certs{}, engines: map[string]protocol.Engine{}}
	e, err := engines()["mysql"].New(t.Context(), protocol.TargetConfig{Name: "shop", URL: h.cfg.Targets["shop"].URL})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	h.engines["shop"] = e
	all, api, err := h.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	for i, want := range []string{"shop", ""} {
		defer all[i].Close()
		if all[i].Target != want || all[i].Engine != h.cfg.Listeners[i].Engine || all[i].Front == nil {
			t.Errorf("%+v", all[i])
		}
	}
	delete(h.engines, "shop")
	if _, _, err := h.listen(); err == nil {
		t.Error("a listener whose target is not there")
	}
}

// A listener that the configuration tells to asks for the password itself, inside TLS.
func TestCleartextReachesTheFront(t *testing.T) {
	secured := httptest.NewTLSServer(nil)
	defer secured.Close()
	for _, cleartext := range []bool{false, true} {
		h := &house{cfg: &config.Config{}, log: slog.New(slog.DiscardHandler), decoy: []byte("key")}
		front, err := h.front(config.Listener{Engine: "postgres", Cleartext: cleartext}, secured.TLS, true)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		defer ours.Close()
		go front.Accept(t.Context(), theirs, nobody{})
		conn := tls.Client(ours, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
		if _, err := conn.Write([]byte("\x00\x00\x00\x12\x00\x03\x00\x00user\x00gno\x00\x00")); err != nil {
			t.Fatal(err)
		}
		var answer [9]byte
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			t.Fatal(err)
		}
		if got := answer[8] == 3; got != cleartext {
			t.Errorf("cleartext: %v is answered by %q", cleartext, answer)
		}
	}
}
