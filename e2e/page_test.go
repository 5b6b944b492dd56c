package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/curfewdb/curfew/internal/provider"
)

// chromium is a browser without a window; each test has one of its own.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal("there is no chromium here; .ci/deps installs it")
	default:
		t.Skip("there is no chromium here; .ci/deps installs it")
	}
	// The sandbox wants a user of its own, which a test has not.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(900, 1180))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		where, _ := chromedp.Run(ctx, chromedp.Location())
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		t.Fatalf("%v\nat %s:\n%s", err, where, text)
	}
}

// tabTo presses Tab until an element has the focus, as somebody does who has no mouse.
func tabTo(t *testing.T, ctx context.Context, selector string) {
	t.Helper()
	for range 20 {
		do(t, ctx, chromedp.KeyEvent(kb.Tab))
		if on := must(chromedp.Run(ctx, chromedp.Evaluate[bool]("document.activeElement.matches('"+selector+"')")))(t); on {
			// What has the focus can be seen to have it.
			ring := must(chromedp.Run(ctx, chromedp.Evaluate[string]("getComputedStyle(document.activeElement).outlineStyle")))(t)
			if ring == "none" {
				t.Errorf("%s does not show that it has the focus", selector)
			}
			return
		}
	}
	t.Fatalf("Tab does not lead to %s", selector)
}

// The page in a real browser, by keyboard alone: a link, the login, the second factor that the rule wants, all
// that is to be known, a comment, the decision. CURFEW_SCREENSHOT names a file for a picture of it.
func TestPageByKeyboard(t *testing.T) {
	t.Parallel()
	s := shared
	ctx := chromium(t)
	asks := []string{"request", "orders", "--level", "keeper", "--for", "45m", "--reason", "Order 4711 was charged twice: correct it, see the customer's mail of this morning",
		"--ticket", "SHOP-1234", "--sql", "UPDATE orders SET paid = 19.90\nWHERE id = 4711;"}
	var r struct{ ID string }
	if err := s.alice.JSON(t.Context(), &r, asks...); err != nil {
		t.Fatal(err)
	}
	link := must(s.notices.Await(t.Context(), "request.created", r.ID))(t).Data.Link
	passcode := must(s.curfew.Passcode())(t)

	do(t, ctx, chromedp.Navigate(link), chromedp.WaitVisible(`a.button`))
	tabTo(t, ctx, "a.button")
	do(t, ctx, chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(`#passcode`))
	tabTo(t, ctx, "#name")
	do(t, ctx, chromedp.KeyEvent("b"))
	tabTo(t, ctx, "#passcode")
	do(t, ctx, chromedp.KeyEvent(passcode+kb.Enter))
	// The login was weak, and the rule wants more: the provider is asked again, and knows who it was.
	do(t, ctx, chromedp.WaitVisible(`#second:checked`))
	if name := must(chromedp.Run(ctx, chromedp.Evaluate[string]("document.querySelector('#name').value")))(t); name != "bob" {
		t.Errorf("the provider expects %s", name)
	}
	do(t, ctx, chromedp.KeyEvent(passcode+kb.Enter), chromedp.WaitVisible(`#comment`))
	text := must(chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText")))(t)
	contains(t, text, "alice@example.test asks for keeper on orders", "Order 4711 was charged twice", "SHOP-1234", "UPDATE orders SET paid",
		"45m", "orders_writer", "class "+provider.ACR, "keepers", "You are bob@example.test")
	if file := os.Getenv("CURFEW_SCREENSHOT"); file != "" {
		if err := os.WriteFile(file, must(chromedp.Run(ctx, chromedp.FullScreenshot(100)))(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tabTo(t, ctx, "#comment")
	do(t, ctx, chromedp.KeyEvent("as agreed"))
	tabTo(t, ctx, "button.yes")
	do(t, ctx, chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(`.notice`))
	text = must(chromedp.Run(ctx, chromedp.Evaluate[string]("document.querySelector('.notice').innerText")))(t)
	contains(t, text, "You have approved this request.")
	got := s.request(t, r.ID)
	if got.Status != "approved" || len(got.Decisions) != 1 || got.Decisions[0].Comment != "as agreed" || got.Decisions[0].Person.ACR != provider.ACR {
		t.Errorf("%+v", got)
	}
	if n := must(chromedp.Run(ctx, chromedp.Evaluate[int]("document.scripts.length")))(t); n != 0 {
		t.Errorf("the page has %d scripts", n)
	}
	// On a telephone nothing is wider than the screen.
	do(t, ctx, chromedp.EmulateViewport(360, 800), chromedp.Navigate("http://"+s.curfew.API+"/web/requests/"+r.ID), chromedp.WaitVisible("h1"))
	if wide := must(chromedp.Run(ctx, chromedp.Evaluate[int]("document.documentElement.scrollWidth")))(t); wide > 360 {
		t.Errorf("the page is %d pixels wide", wide)
	}
	if strings.Contains(must(chromedp.Run(ctx, chromedp.Location()))(t), link) {
		t.Error("the link stays in the address")
	}
}
