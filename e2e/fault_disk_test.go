package e2e

import (
	"bytes"
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// sick is a Curfew of its own with a target on each stage, whose disk, store and clock a story breaks and
// mends while it runs.
type sick struct {
	curfew *harness.Curfew
	faults string // the file that says what is broken
	towns  []*town
}

const stall = time.Second // how long a write may hang here

func newSick(t *testing.T, env ...string) *sick {
	t.Helper()
	bin := must(crashBinary())(t)
	dir := t.TempDir()
	k := &sick{faults: filepath.Join(dir, "faults")}
	k.curfew = must(harness.NewCurfew(bin, filepath.Join(dir, "data"), shared.url, shop.url))(t)
	k.curfew.Env = append([]string{"CURFEW_FAULTS=" + k.faults, "CURFEW_STALL=" + stall.String()}, env...)
	if err := k.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("curfew's log:\n%s", k.curfew.Log())
		}
		if err := k.curfew.Kill(); err != nil {
			t.Error(err)
		}
	})
	base := &town{dir: dir, bin: bin, curfew: k.curfew}
	if err := base.logins(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.towns = []*town{base.on(shared.stage), base.on(shop.stage)}
	return k
}

// breaks says what is broken from now on: nothing that was broken before.
func (k *sick) breaks(t *testing.T, faults ...string) {
	t.Helper()
	text := strings.Join(faults, "\n") + "\n"
	if err := errors.Join(os.WriteFile(k.faults+".new", []byte(text), 0o600), os.Rename(k.faults+".new", k.faults)); err != nil {
		t.Fatal(err)
	}
}

// readyz is what whoever looks after Curfew is told.
func (k *sick) readyz(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second) // whatever hangs, it does not
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.curfew.API+"/readyz", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}

func (k *sick) turns(t *testing.T, status int) {
	t.Helper()
	err := harness.Eventually(t.Context(), 20*time.Second, func(ctx context.Context) error {
		got, err := k.readyz(ctx)
		if err == nil && got != status {
			err = fmt.Errorf("readyz says %d", got)
		}
		return err
	})
	if err != nil {
		t.Fatalf("it does not say %d: %v", status, err)
	}
}

// both plays on both stages at once, and comes back when both are done.
func (k *sick) both(t *testing.T, name string, play func(t *testing.T, s *town)) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		for _, s := range k.towns {
			t.Run(s.kind, func(t *testing.T) {
				t.Parallel()
				play(t, s)
			})
		}
	})
	if !ok {
		t.FailNow()
	}
}

// codeOf is the SQLSTATE, or the error number, that a client reads.
func codeOf(err error) string {
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	switch {
	case errors.As(err, &pg):
		return pg.Code
	case errors.As(err, &my):
		return strconv.Itoa(int(my.Number))
	}
	return fmt.Sprintf("none, but %v", err)
}

// says is how each database's own protocol says something.
func (s *town) says(postgres, mysql string) string {
	if s.kind == "postgres" {
		return postgres
	}
	return mysql
}

// unrecorded checks that a session was ended because its recording was lost, and that its client read so: unless
// the session ended before the client sent anything, because what it did before could not be kept either. Drivers
// don't read what came meanwhile.
func (s *town) unrecorded(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, sqldriver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		t.Logf("the session was over before: %v", err)
		return
	}
	if got := codeOf(err); got != s.says("58030", "1026") {
		t.Errorf("code %s", got)
	}
	contains(t, fmt.Sprint(err), "can't be recorded")
}

// shut checks that no session begins, and that the client reads why.
func (s *town) shut(t *testing.T, creds harness.Credentials, words ...string) {
	t.Helper()
	c, err := s.stage.login(t.Context(), creds)
	if err == nil {
		_ = c.close()
		t.Error("a session began")
		return
	}
	if got := codeOf(err); got != s.says("57P03", "1429") {
		t.Errorf("code %s: %v", got, err)
	}
	contains(t, err.Error(), words...)
}

func insert(word string) string { return "INSERT INTO orders (item) VALUES ('" + word + "')" }

// patient is a grant with a session whose recording a fault is for.
type patient struct {
	*town
	word  string
	grant api.Grant
	creds harness.Credentials
	c     conn
	ran   []string // amid the fault
}

func (s *town) patient(t *testing.T) *patient {
	t.Helper()
	p := &patient{town: s, word: word(t)}
	p.grant, p.creds, p.c = s.connected(t, "writer", 10*time.Minute)
	exec1(t, p.c, insert(p.word+"-before"))
	return p
}

// patients are one on each stage; whatever becomes of them, nothing is broken afterwards.
func (k *sick) patients(t *testing.T) map[*town]*patient {
	t.Helper()
	t.Cleanup(func() { k.breaks(t) })
	all := map[*town]*patient{}
	for _, s := range k.towns {
		all[s] = s.patient(t)
	}
	k.settled(t, all)
	return all
}

// settled waits until the result of what each patient has done is on record: kept a moment later it would be lost
// before anything is asked of the session, which would end before its client listens.
func (k *sick) settled(t *testing.T, patients map[*town]*patient) {
	t.Helper()
	err := harness.Eventually(t.Context(), 20*time.Second, func(context.Context) error {
		open, err := filepath.Glob(filepath.Join(k.curfew.Dir, "data", "recordings", "open", "*.jsonl"))
		settled := 0
		for _, path := range open {
			b, unread := os.ReadFile(path)
			err = errors.Join(err, unread)
			lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
			for _, p := range patients {
				if bytes.Contains(b, []byte(p.word+"-before")) && bytes.Contains(lines[len(lines)-1], []byte(`"type":"result"`)) {
					settled++
				}
			}
		}
		if settled < len(patients) {
			err = errors.Join(err, fmt.Errorf("%d of %d patients have their results on record", settled, len(patients)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wells: the grant goes on, and so does everything else.
func (p *patient) wells(t *testing.T) {
	t.Helper()
	c := p.enter(t, p.creds)
	exec1(t, c, insert(p.word+"-after"))
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

// tally checks what ran and what did not, in the database, and that the ledger and the recordings say the same.
// The first session, which the fault hit, ended with code.
func (p *patient) tally(t *testing.T, code string, ran ...string) {
	t.Helper()
	if g := must(p.sam.Grant(t.Context(), p.grant.ID))(t); g.Ended.IsZero() {
		must(p.alice.Run(t.Context(), "release", p.grant.ID))(t)
	}
	if late := p.receipt(t, p.grant.ID, must(p.sam.Grant(t.Context(), p.grant.ID))(t).EndCode).LateMS; late > 1000 {
		t.Errorf("the cut came %.0f ms late", late)
	}
	var first api.Session
	p.allSealed(t, func(sessions []api.Session) {
		first = slices.MinFunc(sessions, func(a, b api.Session) int { return a.Began.Compare(b.Began) })
	})
	if first.EndCode != code || first.Interrupted != (code == "interrupted") {
		t.Errorf("the session ended as %q: %+v", first.EndCode, first)
	}
	var rows []string
	for _, w := range ran {
		rows = append(rows, p.word+w)
	}
	got := p.ask(t, p.target, "SELECT item FROM orders WHERE item LIKE '"+p.word+"%' ORDER BY item")
	if slices.Sort(rows); !slices.Equal(got, rows) {
		t.Errorf("in the database: %q, want %q", got, rows)
	}
	p.accounted(t, rows)
	dir := p.exported(t, "--grant", p.grant.ID)
	must(p.sam.Run(t.Context(), "verify", dir, "--key", must(p.sam.VerifierKey(t.Context()))(t)))(t)
}

// allSealed waits until every session of the grant is.
func (p *patient) allSealed(t *testing.T, look func([]api.Session)) {
	t.Helper()
	err := harness.Eventually(t.Context(), 20*time.Second, func(ctx context.Context) error {
		sessions, err := p.sam.Sessions(ctx, p.grant.ID)
		if err == nil && len(sessions) == 0 {
			err = errors.New("no session")
		}
		for _, x := range sessions {
			if x.Ended.IsZero() || x.Root == "" {
				err = errors.Join(err, fmt.Errorf("session %s is not sealed", x.ID))
			}
		}
		if err == nil {
			look(sessions)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// accounted: the statements on record without a mark that they did not run are those that ran.
func (p *patient) accounted(t *testing.T, rows []string) {
	t.Helper()
	var ran []string
	for _, rec := range p.recordings(t, p.grant.ID) {
		for id, st := range rec.list {
			if text := rec.sql(st); strings.Contains(text, p.word) && !rec.refused[id+1] && rec.cutOff() != id+1 && !st.failed() {
				item := text[strings.Index(text, p.word):]
				ran = append(ran, item[:strings.Index(item, "'")])
			}
		}
	}
	if slices.Sort(ran); !slices.Equal(ran, rows) {
		t.Errorf("on record as run: %q, in the database: %q", ran, rows)
	}
}

// failed: the database said that it did not do it.
func (st *statement) failed() bool {
	return slices.ContainsFunc(st.results, func(o outcome) bool { return o.Code != "" })
}

// cutOff is the statement that did not come to its end, and did nothing.
func (r *record) cutOff() int {
	if r.end.Fate == "none" || r.end.Fate == "aborted" {
		return r.end.InFlight
	}
	return 0
}

// ailment is something that happens to a disk.
type ailment struct {
	faults []string
	during func(t *testing.T, p *patient) (ran []string) // what its session sees, until that has ended, and what ran
	lasts  bool                                          // until somebody is alarmed
}

// alarmed waits for the alert that recordings can't be kept, in the log and on the ledger.
func (k *sick) alarmed(t *testing.T, grant string) {
	t.Helper()
	err := harness.Eventually(t.Context(), 20*time.Second, func(context.Context) error {
		log, err := os.ReadFile(filepath.Join(k.curfew.Dir, "curfew.log"))
		if err == nil && !strings.Contains(string(log), "ALERT recordings can't be kept") {
			err = errors.New("nobody was alarmed")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	ledger := must(os.ReadFile(filepath.Join(k.towns[0].exported(t, "--grant", grant), "ledger.jsonl")))(t)
	if !strings.Contains(string(ledger), `"type":"recorder.degraded"`) {
		t.Error("the alert is not on the ledger")
	}
}

// refuses: the statement is refused.
func refuses(t *testing.T, p *patient) []string {
	t.Helper()
	p.unrecorded(t, p.c.run(t.Context(), insert(p.word+"-refused")))
	return nil
}

// hangs: so is a statement that hangs, once it is known to hang.
func hangs(t *testing.T, p *patient) []string {
	t.Helper()
	began := time.Now()
	refuses(t, p)
	if took := time.Since(began); took > stall+5*time.Second { // or less: what was there before may hang already
		t.Errorf("the client waited %s for the reason", took)
	}
	return nil
}

// endsSoon: the statement runs, and then the session is ended. On a machine that is slow to ask, the sync of
// what was there before may have ended it by then: the statement is refused.
func endsSoon(t *testing.T, p *patient) (ran []string) {
	t.Helper()
	if err := p.c.run(t.Context(), insert(p.word+"-unsynced")); err != nil {
		p.unrecorded(t, err)
		return nil
	}
	err := harness.Eventually(t.Context(), 15*time.Second, func(ctx context.Context) error {
		left, err := p.server.Ask(ctx, p.target, p.open(p.grant.ID))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("backends: %q", left)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.unrecorded(t, p.c.run(t.Context(), insert(p.word+"-late")))
	return []string{"-unsynced"}
}

// A disk that fails or hangs ends the sessions it hits, each with the reason, and lets none begin; what was
// refused did not run, what ran is on record, and when the disk is well again so is Curfew.
func TestABadDisk(t *testing.T) {
	t.Parallel()
	for durability, ailments := range map[string]map[string]ailment{
		"process": {
			"full":                {[]string{"recorder * * enospc"}, refuses, true},
			"full amid a write":   {[]string{"recorder write * torn", "recorder create * enospc", "recorder probe * enospc"}, refuses, false},
			"read-only":           {[]string{"recorder * * erofs"}, refuses, false},
			"said to have failed": {[]string{"recorder write * stored", "recorder create * stored", "recorder probe * eio"}, refuses, false},
			"sync fails":          {[]string{"recorder sync * eio"}, endsSoon, false},
			"write hangs":         {[]string{"recorder write * hang"}, hangs, false},
			"sync hangs":          {[]string{"recorder sync * hang"}, endsSoon, false},
		},
		"disk": {
			"full":                {[]string{"recorder * * enospc"}, refuses, true},
			"sync fails":          {[]string{"recorder sync * eio"}, refuses, false},
			"said to have failed": {[]string{"recorder sync * stored", "recorder probe * eio"}, refuses, false},
			"sync hangs":          {[]string{"recorder sync * hang"}, hangs, false},
		},
	} {
		t.Run(durability, func(t *testing.T) {
			t.Parallel()
			k := newSick(t, "CURFEW_DURABILITY="+durability)
			for name, a := range ailments {
				t.Run(name, func(t *testing.T) { k.suffers(t, a) })
			}
		})
	}
}

func (k *sick) suffers(t *testing.T, a ailment) {
	patients := k.patients(t)
	k.breaks(t, a.faults...)
	k.both(t, "bad", func(t *testing.T, s *town) {
		p := patients[s]
		p.ran = a.during(t, p)
		p.shut(t, p.creds, "can't be recorded")
	})
	k.turns(t, http.StatusServiceUnavailable)
	if a.lasts {
		k.alarmed(t, patients[k.towns[0]].grant.ID)
	}
	k.breaks(t)
	k.turns(t, http.StatusOK)
	k.both(t, "well", func(t *testing.T, s *town) {
		p := patients[s]
		p.wells(t)
		p.tally(t, "record", append(p.ran, "-before", "-after")...)
	})
}

// A disk on which nothing new can be made lets no session begin and keeps none from going on; one on which
// nothing can be finished keeps no grant from ending, and finishes when it can.
func TestADiskThatOnlyGoesOn(t *testing.T) {
	t.Parallel()
	k := newSick(t)
	patients := k.patients(t)
	k.breaks(t, "recorder create * enospc")
	k.both(t, "create fails", func(t *testing.T, s *town) {
		p := patients[s]
		p.shut(t, p.creds, "can't be recorded")
		exec1(t, p.c, insert(p.word+"-amid"))
	})
	k.breaks(t, "recorder rename * erofs", "recorder create_sealed * enospc")
	k.both(t, "rename fails", func(t *testing.T, s *town) {
		p := patients[s]
		must(p.alice.Run(t.Context(), "release", p.grant.ID))(t)
		p.receipt(t, p.grant.ID, "released")
		for _, x := range must(p.sam.Sessions(t.Context(), p.grant.ID))(t) {
			if x.Root != "" {
				t.Errorf("it is said to be sealed: %+v", x)
			}
		}
	})
	k.turns(t, http.StatusServiceUnavailable)
	k.breaks(t)
	k.turns(t, http.StatusOK)
	k.both(t, "well", func(t *testing.T, s *town) { patients[s].tally(t, "released", "-before", "-amid") })
}

// While the disk hangs, and nobody yet knows that it does, grants end on time, whole, with the reason before
// the client's eyes.
func TestAHungDiskHoldsUpNoEnd(t *testing.T) {
	t.Parallel()
	k := newSick(t, "CURFEW_STALL=30m") // its parts may wait a minute for their turn among other stories
	patients := k.patients(t)
	k.breaks(t, "recorder * * hang")
	k.both(t, "bad", func(t *testing.T, s *town) {
		p := patients[s]
		done := goExec(t.Context(), p.c, insert(p.word+"-refused"))
		must(p.bob.Run(t.Context(), "revoke", p.grant.ID, "--reason", "amid a disk that hangs"))(t)
		p.told(t, ends(t, done), "revoked", "amid a disk that hangs")
		if r := p.receipt(t, p.grant.ID, "revoked"); r.LateMS > 1000 { // both parts, while the disk still hangs
			t.Errorf("the cut came %.0f ms late", r.LateMS)
		}
	})
	k.breaks(t)
	k.both(t, "well", func(t *testing.T, s *town) { patients[s].tally(t, "revoked", "-before") })
}
