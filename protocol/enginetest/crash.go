package enginetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// childEnv carries a child's part.
const childEnv = "CURFEW_ENGINETEST_CHILD"

// part is what a child is to do: to tell the story on a server that another process started, and to kill
// itself at a step.
type part struct {
	Broker       string
	Installation string
	Kept, Lost   protocol.AccountSpec
	At           int
	Journal      string // file for what the sinks learn of prepared transactions, as recordings keep it
}

// Child says that this process is one that a test started in order to have it killed. TestMain starts no
// server then and runs the tests: the one that calls Run is the only one asked for.
func Child() bool { return os.Getenv(childEnv) != "" }

// child tells the story until it is killed.
func child(t *testing.T, kit Kit) {
	var p part
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &p); err != nil {
		t.Fatal(err)
	}
	s := newSuite(t, kit, p.Broker)
	var mu sync.Mutex
	calls := 0
	n := s.stray(t, as(p.Installation), stepping(func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if calls == p.At {
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Kill()
			}
			if err == nil {
				select {} // it comes at once
			}
			return err
		}
		calls++
		return nil
	}))
	n.before = func(e recorder.Event) error { return note(p.Journal, e.Prepares) }
	l := &life{kept: p.Kept, lost: p.Lost}
	l.live(t, n, func(what string, call func() error) {
		if err := call(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	})
	t.Fatalf("step %d was never reached", p.At)
}

// note keeps a global id, if there is one.
func note(journal string, gid []byte) error {
	if len(gid) == 0 {
		return nil
	}
	f, err := os.OpenFile(journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(string(gid) + "\n")
	return errors.Join(err, f.Close())
}

// crash: kill -9 at each call of each step. Another process adopts the account that has a grant, or recalls
// it if its end had begun, and sweeps up the rest.
func crash(t *testing.T, s *suite) {
	for i, name := range s.dryRun(t) {
		t.Run(fmt.Sprintf("%02d %s", i, name), func(t *testing.T) {
			t.Parallel()
			n := s.node(t)
			l := s.life(n)
			t.Cleanup(func() { s.undo(t, l) })
			journal := filepath.Join(t.TempDir(), "prepared")
			s.killedAt(t, part{Broker: s.broker, Installation: n.installation, Kept: l.kept, Lost: l.lost, At: i, Journal: journal})
			l.marks = append(l.marks, "prepared-"+l.kept.Grant)
			for j := range 8 {
				l.marks = append(l.marks, fmt.Sprintf("busy-%d-%s", j, l.kept.Grant), fmt.Sprintf("busy-%d-%s", j, l.lost.Grant))
			}
			if raw, err := os.ReadFile(journal); err == nil {
				l.kept.Prepared = strings.Fields(string(raw))
			}
			if _, err := n.engine.Sweep(n.soon(), func(account string) bool { return account == l.kept.Name }); err != nil {
				t.Fatalf("sweep: %v", err)
			}
			if n.ask(t, s.kit.Dialect.Accounts(l.lost.Name)) != 0 || n.backends(t, l.lost.Name) != 0 {
				t.Error("one without a grant outlived the sweep")
			}
			if i%2 == 0 {
				s.adoptAfterCrash(t, n, l)
			} else {
				g := &grant{node: n, spec: l.kept, account: n.engine.Recall(l.kept)}
				g.finish(t)
			}
			l.over(t, n)
		})
	}
}

// adoptAfterCrash goes on with the grant, and ends it.
func (s *suite) adoptAfterCrash(t *testing.T, n *node, l *life) {
	t.Helper()
	g, err := n.provision(l.kept)
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	// The engine itself may just have logged in as the account.
	eventually(t, "no backend is adopted", func() bool { return n.backends(t, l.kept.Name) == 0 })
	c, ss := g.dial(t)
	c.must("SELECT 1")
	c.bye()
	wait(t, "the session ends", ss.done)
	g.finish(t)
}

// killedAt starts a child and wants it to end by its own hand.
func (s *suite) killedAt(t *testing.T, p part) {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	top, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+top+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childEnv+"="+string(raw))
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("the child ended with %v:\n%s", err, out.String())
	}
	if exit.String() != "signal: killed" {
		t.Fatalf("the child ended with %v:\n%s", err, out.String())
	}
}
