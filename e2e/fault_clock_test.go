package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// A clock that is set back extends nothing, now or across a restart, and is put on the ledger. One that steps
// ahead, as it does when a machine wakes up, ends what is over by then; and set right again brings nothing back.
func TestABadClock(t *testing.T) {
	t.Parallel()
	k := newSick(t)
	patients := k.patients(t)

	k.breaks(t, "wall -1h")
	k.both(t, "set back", func(t *testing.T, s *town) {
		p := patients[s]
		exec1(t, p.c, insert(p.word+"-back"))
		err := harness.Eventually(t.Context(), 10*time.Second, func(context.Context) error {
			ledger, err := os.ReadFile(filepath.Join(p.exported(t, "--grant", p.grant.ID), "ledger.jsonl"))
			if err == nil && !strings.Contains(string(ledger), `"type":"clock.set_back"`) {
				err = errors.New("it is not on the ledger")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(k.curfew.Kill(), k.curfew.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := k.towns[0].logins(t.Context()); err != nil { // both towns have the same people, at the same terminals
		t.Fatal(err)
	}
	k.both(t, "started again", func(t *testing.T, s *town) {
		p := patients[s]
		if g := must(p.sam.Grant(t.Context(), p.grant.ID))(t); !g.End.Equal(p.grant.End) || !g.Ended.IsZero() {
			t.Errorf("the grant was to end at %s: %+v", p.grant.End, g)
		}
		p.c = must(s.stage.login(t.Context(), p.creds))(t) // for longer than this part of the story
		exec1(t, p.c, insert(p.word+"-again"))
	})

	for _, p := range patients {
		t.Cleanup(func() { _ = p.c.close() }) // Curfew hangs up on it
	}

	k.breaks(t, "wall 1h")
	k.both(t, "ahead", func(t *testing.T, s *town) {
		p := patients[s]
		began := time.Now()
		err := harness.Eventually(t.Context(), 20*time.Second, func(ctx context.Context) error {
			left, err := p.server.Ask(ctx, p.target, p.open(p.grant.ID))
			if err == nil && len(left) > 0 {
				err = errors.New("it goes on")
			}
			return err
		})
		if took := time.Since(began); err != nil || took > 5*time.Second {
			t.Errorf("an hour later, after %s: %v", took, err)
		}
		p.told(t, p.c.run(t.Context(), insert(p.word+"-late")), "ended at")
	})
	k.breaks(t)
	k.both(t, "set right", func(t *testing.T, s *town) {
		p := patients[s]
		if c, err := s.stage.login(t.Context(), p.creds); err == nil {
			_ = c.close()
			t.Error("a grant that was over lets people in")
		} else {
			contains(t, err.Error(), "ended at")
		}
		p.tally(t, "interrupted", "-before", "-back", "-again") // its first session met kill -9
	})
}
