package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// soon waits until check is content.
func soon(t *testing.T, patience time.Duration, check func(context.Context) error) {
	t.Helper()
	if err := harness.Eventually(t.Context(), patience, check); err != nil {
		t.Fatal(err)
	}
}

// counted gives one series of /metrics.
func (s *town) counted(t *testing.T, series string) float64 {
	t.Helper()
	return must(s.curfew.Metrics(t.Context()))(t)[series]
}

// What operators see of a session and of a grant's end, in /metrics and `curfew status`, is what happened.
func TestOperatorsSeeWhatHappens(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		w := s.wire(t)
		g, _, c := w.joined(t, "writer")
		for i := range 5 {
			exec1(t, c, fmt.Sprintf("SELECT %d", i))
		}
		of := func(name, labels string) string { return name + `{` + labels + `target="` + w.target + `"}` }
		soon(t, 5*time.Second, func(context.Context) error {
			if n := w.counted(t, of("curfew_statements_total", "")); n < 5 {
				return fmt.Errorf("%v statements", n)
			}
			return nil
		})
		for series, least := range map[string]float64{
			of("curfew_sessions", `level="writer",`):              1,
			of("curfew_accounts", `state="live",`):                1,
			of("curfew_session_bytes_total", `from="client",`):    50,
			of("curfew_session_bytes_total", `from="server",`):    50,
			`curfew_grants{state="active"}`:                       1,
			of("curfew_target_up", ""):                            1,
			of("curfew_sweeps_total", `result="ok",`):             1,
			"curfew_store_update_seconds_count":                   5,
			"curfew_ledger_entries":                               5,
			`curfew_ready{check="store"}`:                         1,
			of("curfew_sweep_last_success_timestamp_seconds", ""): 1e9,
		} {
			if n := w.counted(t, series); n < least {
				t.Errorf("%s is %v, want %v at least", series, n, least)
			}
		}
		// The database goes away: it is shown, and the node stays ready.
		w.back.ail(t, "timeout", map[string]any{"timeout": 0})
		var red map[string]string
		soon(t, 60*time.Second, func(ctx context.Context) error {
			r, err := w.curfew.Ready(ctx)
			if red = r.Red(); err == nil && red["target:"+w.target] == "" {
				err = errors.New("nobody sees that the target is away")
			}
			return err
		})
		if len(red) != 1 {
			t.Errorf("red: %v", red)
		}
		out, err := exec.CommandContext(t.Context(), w.bin, "status", "--ops", "http://"+w.curfew.Ops).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "is ready") || !strings.Contains(string(out), "degraded") {
			t.Errorf("curfew status: %v\n%s", err, out)
		}
		w.back.heal(t)
		soon(t, 30*time.Second, func(ctx context.Context) error {
			r, err := w.curfew.Ready(ctx)
			if err == nil && len(r.Red()) != 0 {
				err = fmt.Errorf("still red: %v", r.Red())
			}
			return err
		})
		must(w.bob.Run(t.Context(), "revoke", g.ID, "--reason", "enough"))(t)
		w.closedLate(t, g.ID, "revoked", 60*time.Second)
		soon(t, 10*time.Second, func(context.Context) error {
			for series, want := range map[string]float64{
				of("curfew_grant_end_lateness_seconds_count", ""): 1, of("curfew_grant_clean_seconds_count", ""): 1,
				of("curfew_accounts", `state="live",`): 0, of("curfew_accounts", `state="ending",`): 0,
			} {
				if n := w.counted(t, series); n != want {
					return fmt.Errorf("%s is %v, want %v", series, n, want)
				}
			}
			return nil
		})
	})
}

// A node that is asked to stop says so before it stops anything, tells its clients, and ends in time, whatever
// a database does; asked again, it ends at once.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := shared.wire(t)
	g, _, c := w.joined(t, "writer")
	exec1(t, c, "SELECT 1")
	w.back.ail(t, "timeout", map[string]any{"timeout": 0}) // so that ending the account takes its time
	began := time.Now()
	if err := syscall.Kill(w.curfew.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.told(t, ends(t, goExec(t.Context(), c, "SELECT 1")), "being stopped", "your grant is unchanged")
	soon(t, 5*time.Second, func(ctx context.Context) error {
		r, err := w.curfew.Ready(ctx)
		if err == nil && r.Red()["accepting"] == "" {
			err = fmt.Errorf("red: %v", r.Red())
		}
		return err
	})
	out, err := exec.CommandContext(t.Context(), w.bin, "status", "--ops", "http://"+w.curfew.Ops, "-o", "json").Output()
	var exit *exec.ExitError
	var state struct{ Status string }
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || json.Unmarshal(out, &state) != nil || state.Status != "not ready" {
		t.Errorf("curfew status: %v, %s", err, out)
	}
	if conn, err := net.Dial("tcp", w.listen()); err == nil {
		conn.Close()
		t.Error("a node that stops takes connections")
	}
	if err := syscall.Kill(w.curfew.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.curfew.Exited():
	case <-time.After(5 * time.Second):
		t.Error("it was asked twice, and goes on")
	}
	w.back.heal(t)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	// The next start makes good for it: the account is Curfew's again, and the grant as it was.
	if err := w.curfew.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.logins(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := must(w.alice.Grant(t.Context(), g.ID))(t); now.Status != api.GrantActive {
		t.Errorf("the grant is %s", now.Status)
	}
	exec1(t, w.enter(t, must(w.alice.Credentials(t.Context(), g.ID))(t)), "SELECT 1")
}

// curfew serve, as a service manager runs it: it hears when Curfew serves, that it is well, and that it stops. A sealed
// recording that the ledger does not know is an alert, and keeps nobody out.
func TestServeUnderAServiceManager(t *testing.T) {
	t.Parallel()
	st := shared.apart(t, shared.stage) // makes the broker and a configuration
	if err := st.curfew.Stop(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	hear := func() string {
		buf := make([]byte, 100)
		manager.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := manager.Read(buf)
		if err != nil {
			t.Fatalf("the manager hears nothing: %v", err)
		}
		return string(buf[:n])
	}
	config := filepath.Join(st.curfew.Dir, "curfew.yaml")
	stray := filepath.Join(st.curfew.Dir, "data", "recordings", "sealed", "2026", "01", "02", "snobody.jsonl.zst")
	if err := errors.Join(os.MkdirAll(filepath.Dir(stray), 0o700), os.WriteFile(stray, []byte("of nobody"), 0o600)); err != nil {
		t.Fatal(err)
	}
	serve := exec.Command(st.bin, "serve", "--config", config)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	serve.Stderr = log
	serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	serve.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=600000")
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer serve.Process.Kill()
	seen := map[string]int{}
	for seen["READY=1"] == 0 || seen["WATCHDOG=1"] < 3 {
		seen[hear()]++
	}
	soon(t, 20*time.Second, func(ctx context.Context) error {
		r, err := st.curfew.Ready(ctx)
		if err == nil && len(r.Red()) > 0 {
			err = fmt.Errorf("red: %v", r.Red())
		}
		return err
	})
	said := func() string { return string(must(os.ReadFile(log.Name()))(t)) }
	soon(t, 20*time.Second, func(context.Context) error {
		if !regexp.MustCompile(`ALERT a sealed recording that the ledger does not know.*snobody`).MatchString(said()) {
			return errors.New("nothing is said of the recording of nobody")
		}
		return nil
	})
	backup := exec.CommandContext(t.Context(), st.bin, "backup", "--config", config, "--to", filepath.Join(dir, "copy"))
	if out, err := backup.CombinedOutput(); err != nil || !strings.Contains(string(out), "holds a ledger of") {
		t.Errorf("curfew backup: %v\n%s", err, out)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for seen["STOPPING=1"] == 0 {
		seen[hear()]++
	}
	if err := serve.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said())
	}
}
