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

// story is what happens between three people and one database.
type story struct {
	*narrator
	dir     string
	curfew  *harness.Curfew
	notices *harness.Notices
	database

	alice, bob, sam *harness.Person

	request api.Request
	grant   api.Grant
	creds   harness.Credentials
	session api.Session
}

// play tells the whole story; again tells what is different with another database.
func (s *story) play(ctx context.Context) error {
	return scenes(ctx, s.logins, s.asking, s.notOneself, s.approving, s.working, s.cutOff, s.evidence, s.verifying, s.theDesk)
}

func (s *story) again(ctx context.Context, db database) error {
	other := &story{narrator: s.narrator, dir: s.dir, curfew: s.curfew, database: db, alice: s.alice, bob: s.bob, sam: s.sam}
	return scenes(ctx, other.asking, other.approving, other.working, other.cutOff, other.evidence, other.verifying)
}

func scenes(ctx context.Context, all ...func(context.Context) error) error {
	for _, scene := range all {
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
	s.step("Alice asks for write access to %s for %v, with a reason.", s.target, s.window)
	const reason = "order 4711 was booked twice"
	s.typed("alice", fmt.Sprintf("curfew request %s --level writer --for %v --reason %q", s.target, s.window, reason))
	if err := s.alice.JSON(ctx, &s.request, "request", s.target, "--level", "writer", "--for", s.window.String(), "--reason", reason); err != nil {
		return err
	}
	s.read(fmt.Sprintf("request %s is %s", s.request.ID, s.request.Status))
	return nil
}

func (s *story) notOneself(ctx context.Context) error {
	s.typed("alice", "curfew approve "+s.request.ID)
	if _, err := s.alice.Approve(ctx, s.request.ID); err == nil {
		return errors.New("alice approved her own request")
	}
	s.checked("she can't approve her own request; nobody can")
	return nil
}

func (s *story) approving(ctx context.Context) error {
	r := s.request
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
	if got := g.End.Sub(g.Start); got != s.window {
		return fmt.Errorf("the window is %v", got)
	}
	s.checked("grant %s runs for %v and ends at %s", g.ID, s.window, g.End.Format("15:04:05"))
	return nil
}

func (s *story) working(ctx context.Context) (err error) {
	s.step("Alice works with her own %s, under an account that was made for this grant alone.", s.client)
	if s.creds, err = s.alice.Credentials(ctx, s.grant.ID); err != nil {
		return err
	}
	s.typed("alice", s.shown(s.grant.ID))
	out, err := harness.Run(s.work(ctx, s.creds, s.whoami, "SELECT id, item FROM orders ORDER BY id", "UPDATE orders SET item = 'candlestick' WHERE id = 3"))
	if err != nil {
		return err
	}
	s.read(out)
	account, err := s.accounts(ctx, s.grant.ID)
	if err != nil {
		return err
	}
	if len(account) != 1 || !strings.Contains(out, account[0]) {
		return fmt.Errorf("accounts of the grant: %v", account)
	}
	s.checked("%s knows her as %s", s.product, account[0])
	return nil
}

func (s *story) cutOff(ctx context.Context) error {
	s.step("She starts an INSERT that takes a minute. %.0f s are left.", time.Until(s.grant.End).Seconds())
	s.typed("alice", s.client+" … \""+s.long+"\"")
	_, err := harness.Run(s.work(ctx, s.creds, s.long))
	late := time.Since(s.grant.End)
	var ce *harness.CommandError
	if !errors.As(err, &ce) {
		return fmt.Errorf("%s was not cut off: %w", s.client, err)
	}
	s.read(ce.Stderr)
	if !strings.Contains(ce.Stderr, "ended") || late < 0 || late > 2*time.Second {
		return fmt.Errorf("%s ended %v after the grant, with: %s", s.client, late, ce.Stderr)
	}
	s.checked("%s ended %d ms after the grant, with the reason in words", s.client, late.Milliseconds())
	rows, err := s.server.Ask(ctx, s.target, "SELECT count(*) FROM orders WHERE item LIKE 'too late%'")
	if err != nil {
		return err
	}
	if rows[0] != "0" {
		return fmt.Errorf("%s rows were committed", rows[0])
	}
	s.checked("not one row of it was committed")
	gone := func(ctx context.Context) error {
		left, err := s.server.Leftovers(ctx, "curfew_%")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left in the database: %v", left)
		}
		return err
	}
	if err := harness.Eventually(ctx, 10*time.Second, gone); err != nil {
		return err
	}
	s.checked("the connection is gone, the account is gone")
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
	bundle := filepath.Join(s.dir, s.target+".tar.zst")
	if _, err := s.as(ctx, s.sam, "export", "--grant", s.grant.ID, "--file", bundle); err != nil {
		return err
	}
	if _, err := s.as(ctx, s.sam, "verify", bundle, "--key", key); err != nil {
		return err
	}
	s.checked("nothing was changed, removed, reordered or cut off")
	return nil
}
