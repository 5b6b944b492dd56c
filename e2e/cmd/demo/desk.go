package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// keeping is what happens around a level that demands more than a password, of whoever asks and of whoever agrees.
type keeping struct {
	*story
	said bytes.Buffer // by her client
	over chan error   // its end
}

// theDesk tells of proof, of a decision by a link, of more time, and of an end before the end.
func (s *story) theDesk(ctx context.Context) error {
	own := *s
	k := &keeping{story: &own, over: make(chan error, 1)}
	return scenes(ctx, k.steppingUp, k.deciding, k.starting, k.extending, k.revoking)
}

func (k *keeping) steppingUp(ctx context.Context) error {
	k.step("The level \"keeper\" takes a second factor, shown in the last quarter of an hour. Alice has logged in with a password.")
	const reason = "the ledger of last week"
	args := []string{"request", k.target, "--level", "keeper", "--for", "1m", "--reason", reason}
	k.typed("alice", fmt.Sprintf("curfew request %s --level keeper --for 1m --reason %q", k.target, reason))
	if err := k.alice.JSON(ctx, &k.request, args...); err != nil {
		return err
	}
	if k.request.Person.ACR == "" || len(k.request.Person.AMR) < 2 {
		return fmt.Errorf("she asked as %+v", k.request.Person)
	}
	k.checked("the login was stepped up (amr %s), and the request went on by itself: %s", strings.Join(k.request.Person.AMR, ", "), k.request.ID)
	return nil
}

func (k *keeping) deciding(ctx context.Context) error {
	k.step("Bob gets a signed message with a link. It opens a page, after his own login and second factor; a form decides.")
	n, err := k.notices.Await(ctx, "request.created", k.request.ID)
	if err != nil {
		return err
	}
	k.read(fmt.Sprintf("%s\n%s", n.Data.Title, n.Data.Link))
	browser, err := k.curfew.Browser("bob")
	if err != nil {
		return err
	}
	page, err := browser.Open(ctx, n.Data.Link)
	if err != nil {
		return err
	}
	if !strings.Contains(page, "alice@example.test") || strings.Contains(page, "<script") {
		return fmt.Errorf("the page does not say who asks, or has scripts:\n%s", page)
	}
	if _, err := browser.Decide(ctx, page, k.request.ID, true, "go ahead"); err != nil {
		return err
	}
	if err := k.alice.JSON(ctx, &k.request, "requests", k.request.ID); err != nil {
		return err
	}
	if k.request.Grant == "" {
		return fmt.Errorf("the request is %s", k.request.Status)
	}
	k.checked("approved by the page's form: grant %s", k.request.Grant)
	if other, err := k.curfew.Browser("bob"); err != nil {
		return err
	} else if _, err := other.Open(ctx, n.Data.Link); err == nil {
		return errors.New("the link worked twice")
	}
	k.checked("the link is spent")
	k.grant, err = k.alice.Grant(ctx, k.request.Grant)
	return err
}

func (k *keeping) starting(ctx context.Context) (err error) {
	k.step("Alice starts something that takes a minute. It will not be done when her minute is over.")
	if k.creds, err = k.alice.Credentials(ctx, k.grant.ID); err != nil {
		return err
	}
	k.typed("alice", k.client+" … \""+k.long+"\"")
	client := k.work(ctx, k.creds, k.long)
	client.Stdout, client.Stderr = &k.said, &k.said
	if err := client.Start(); err != nil {
		return err
	}
	go func() { k.over <- client.Wait() }()
	return harness.Eventually(ctx, 10*time.Second, func(ctx context.Context) error {
		all, err := k.alice.Sessions(ctx, k.grant.ID)
		if err == nil && (len(all) != 1 || all[0].Statements == 0) {
			err = errors.New("her session has not begun")
		}
		if err == nil {
			k.session = all[0]
		}
		return err
	})
}

func (k *keeping) extending(ctx context.Context) error {
	k.step("She asks for more time while it runs; Bob agrees, as he had to for the first minute. Nobody reconnects.")
	var r api.Request
	const reason = "it takes longer than I thought"
	k.typed("alice", fmt.Sprintf("curfew extend %s --for 10m --reason %q", k.grant.ID, reason))
	if err := k.alice.JSON(ctx, &r, "extend", k.grant.ID, "--for", "10m", "--reason", reason); err != nil {
		return err
	}
	if _, err := k.as(ctx, k.bob, "approve", r.ID); err != nil {
		return err
	}
	g, err := k.alice.Grant(ctx, k.grant.ID)
	if err != nil {
		return err
	}
	if more := g.End.Sub(k.grant.End); more != 10*time.Minute {
		return fmt.Errorf("the end moved by %v", more)
	}
	all, err := k.alice.Sessions(ctx, k.grant.ID)
	if err != nil {
		return err
	}
	if len(all) != 1 || all[0].ID != k.session.ID || !all[0].Ended.IsZero() {
		return fmt.Errorf("her session did not go on: %+v", all)
	}
	k.checked("grant %s ends at %s now, not at %s; session %s goes on", g.ID, g.End.Format("15:04:05"), k.grant.End.Format("15:04:05"), k.session.ID)
	return nil
}

func (k *keeping) revoking(ctx context.Context) error {
	k.step("Sam, of security, has seen enough, and ends it now.")
	const reason = "this is the wrong ledger"
	k.typed("sam", fmt.Sprintf("curfew revoke %s --reason %q", k.grant.ID, reason))
	if _, err := k.sam.Run(ctx, "revoke", k.grant.ID, "--reason", reason); err != nil {
		return err
	}
	select {
	case err := <-k.over:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(k.said.String(), reason) {
			return fmt.Errorf("%s ended with %w:\n%s", k.client, err, k.said.String())
		}
	case <-time.After(10 * time.Second):
		return fmt.Errorf("%s goes on after the grant was revoked", k.client)
	}
	k.read(k.said.String())
	k.checked("%s was cut off in the middle, and reads by whom and why", k.client)
	gone := func(ctx context.Context) error {
		left, err := k.accounts(ctx, k.grant.ID)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left in the database: %v", left)
		}
		return err
	}
	if err := harness.Eventually(ctx, 10*time.Second, gone); err != nil {
		return err
	}
	g, err := k.alice.Grant(ctx, k.grant.ID)
	if err != nil {
		return err
	}
	if g.Receipt == nil || g.EndCode != "revoked" {
		return fmt.Errorf("the grant: %+v", g)
	}
	k.checked("no backend was left %.0f ms after the word; the account is gone", g.Receipt.LateMS)
	return nil
}
