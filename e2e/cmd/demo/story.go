package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/protocol"
)

// window is a demo's half hour.
const window = 20 * time.Second

type story struct {
	*narrator
	dir    string
	pg     *harness.Postgres
	curfew *harness.Curfew

	alice, bob, sam *harness.Person

	grant   api.Grant
	creds   harness.Credentials
	session api.Session
}

func (s *story) play(ctx context.Context) error {
	for _, scene := range []func(context.Context) error{s.logins, s.asking, s.working, s.cutOff, s.evidence, s.verifying} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) logins(ctx context.Context) (err error) {
	s.step("Three people log in with the identity provider: alice (developer), bob (lead), sam (security).")
	for name, p := range map[string]**harness.Person{"alice": &s.alice, "bob": &s.bob, "sam": &s.sam} {
		if *p, err = s.curfew.Login(ctx, name, filepath.Join(s.dir, "homes")); err != nil {
			return err
		}
	}
	if _, err := s.as(ctx, s.alice, "whoami"); err != nil {
		return err
	}
	_, err = s.as(ctx, s.alice, "targets")
	return err
}

// as runs a curfew command as a person and shows it.
func (s *story) as(ctx context.Context, p *harness.Person, args ...string) (string, error) {
	shown := make([]string, len(args))
	for i, a := range args {
		if shown[i] = a; strings.ContainsAny(a, " ") {
			shown[i] = fmt.Sprintf("%q", a)
		}
	}
	return s.run(p.Name, "curfew "+strings.Join(shown, " "), p.Command(ctx, args...))
}

func (s *story) asking(ctx context.Context) error {
	s.step("Alice asks for write access to orders for %v, with a reason.", window)
	const reason = "order 4711 was booked twice"
	s.typed("alice", fmt.Sprintf("curfew request orders --level writer --for %v --reason %q", window, reason))
	var r api.Request
	if err := s.alice.JSON(ctx, &r, "request", "orders", "--level", "writer", "--for", window.String(), "--reason", reason); err != nil {
		return err
	}
	s.read(fmt.Sprintf("request %s is %s", r.ID, r.Status))
	s.typed("alice", "curfew approve "+r.ID)
	if _, err := s.alice.Approve(ctx, r.ID); err == nil {
		return errors.New("alice approved her own request")
	}
	s.checked("she can't approve her own request; nobody can")
	s.step("Bob approves. From now on the clock runs, whether she connects or not.")
	if _, err := s.as(ctx, s.bob, "approve", r.ID); err != nil {
		return err
	}
	if err := s.alice.JSON(ctx, &r, "requests", r.ID); err != nil {
		return err
	}
	g, err := s.alice.Grant(ctx, r.Grant)
	if err != nil {
		return err
	}
	s.grant = g
	if got := g.End.Sub(g.Start); got != window {
		return fmt.Errorf("the window is %v", got)
	}
	s.checked("grant %s runs for %v and ends at %s", g.ID, window, g.End.Format("15:04:05"))
	return nil
}

func (s *story) working(ctx context.Context) (err error) {
	s.step("Alice works with her own psql, under an account that was made for this grant alone.")
	if s.creds, err = s.alice.Credentials(ctx, s.grant.ID); err != nil {
		return err
	}
	s.typed("alice", "psql \"$(curfew credentials "+s.grant.ID+" -o dsn)\"")
	sql := []string{"SELECT current_user", "SELECT id, item FROM orders ORDER BY id", "UPDATE orders SET item = 'candlestick' WHERE id = 3"}
	var args []string
	for _, q := range sql {
		args = append(args, "-c", q)
	}
	out, err := harness.Run(s.creds.PSQL(ctx, append([]string{"-e"}, args...)...))
	if err != nil {
		return err
	}
	s.read(out)
	account, err := s.pg.Ask(ctx, "orders", "SELECT rolname FROM pg_roles WHERE rolname LIKE 'curfew\\_%' || $1", s.grant.ID)
	if err != nil {
		return err
	}
	if len(account) != 1 || !strings.Contains(out, account[0]) {
		return fmt.Errorf("accounts of the grant: %v", account)
	}
	s.checked("PostgreSQL knows her as %s", account[0])
	return nil
}

const long = `INSERT INTO orders (item) SELECT 'too late' || coalesce(pg_sleep(0.1)::text, '') FROM generate_series(1, 600)`

func (s *story) cutOff(ctx context.Context) error {
	s.step("She starts an INSERT that takes a minute. %.0f s are left.", time.Until(s.grant.End).Seconds())
	s.typed("alice", "psql … -c \""+long+"\"")
	_, err := harness.Run(s.creds.PSQL(ctx, "-c", long))
	late := time.Since(s.grant.End)
	var ce *harness.CommandError
	if !errors.As(err, &ce) {
		return fmt.Errorf("psql was not cut off: %w", err)
	}
	s.read(ce.Stderr)
	if !strings.Contains(ce.Stderr, "ended") || late < 0 || late > 2*time.Second {
		return fmt.Errorf("psql ended %v after the grant, with: %s", late, ce.Stderr)
	}
	s.checked("psql ended %d ms after the grant, with the reason in words", late.Milliseconds())
	rows, err := s.pg.Ask(ctx, "orders", "SELECT count(*) FROM orders WHERE item LIKE 'too late%'")
	if err != nil {
		return err
	}
	if rows[0] != "0" {
		return fmt.Errorf("%s rows were committed", rows[0])
	}
	s.checked("not one row of it was committed")
	gone := func(ctx context.Context) error {
		left, err := s.pg.Leftovers(ctx, "curfew_%")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left in the database: %v", left)
		}
		return err
	}
	if err := harness.Eventually(ctx, 10*time.Second, gone); err != nil {
		return err
	}
	s.checked("the backend is gone, the account is gone")
	return nil
}

func (s *story) evidence(ctx context.Context) error {
	s.step("The receipt says so, too.")
	whole := func(ctx context.Context) error {
		g, err := s.alice.Grant(ctx, s.grant.ID)
		if err == nil && (g.Receipt == nil || len(g.Receipt.Clean) == 0) {
			err = errors.New("the receipt is not whole")
		}
		s.grant = g
		return err
	}
	if err := harness.Eventually(ctx, 20*time.Second, whole); err != nil {
		return err
	}
	var cut protocol.Cut
	if err := json.Unmarshal(s.grant.Receipt.Cut, &cut); err != nil {
		return err
	}
	if len(cut.Outcomes) == 0 || cut.Left != 0 || cut.Outcomes[len(cut.Outcomes)-1].Fate != protocol.FateAborted {
		return fmt.Errorf("the receipt: %s", s.grant.Receipt.Cut)
	}
	if _, err := s.as(ctx, s.alice, "grants", s.grant.ID); err != nil {
		return err
	}
	s.step("Sam, of security, replays what was done. Alice could not.")
	sessions, err := s.sam.Sessions(ctx, s.grant.ID)
	if err != nil {
		return err
	}
	for _, x := range sessions {
		if x.EndCode == "expired" {
			s.session = x
		}
	}
	if s.session.ID == "" {
		return fmt.Errorf("no session ended with the grant: %+v", sessions)
	}
	out, err := s.as(ctx, s.sam, "replay", "--no-wait", s.session.ID)
	if err != nil {
		return err
	}
	if !strings.Contains(out, "too late") || !strings.Contains(out, "alice@example.test") {
		return errors.New("the replay does not show who did what")
	}
	return nil
}

func (s *story) verifying(ctx context.Context) error {
	s.step("An auditor gets a bundle and the public key, and checks both without a network.")
	key, err := s.sam.VerifierKey(ctx)
	if err != nil {
		return err
	}
	bundle := filepath.Join(s.dir, "bundle.tar.zst")
	if _, err := s.as(ctx, s.sam, "export", "--grant", s.grant.ID, "--file", bundle); err != nil {
		return err
	}
	if _, err := s.as(ctx, s.sam, "verify", bundle, "--key", key); err != nil {
		return err
	}
	s.checked("nothing was changed, removed, reordered or cut off")
	return nil
}
