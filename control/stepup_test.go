package control

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// stepUp logs in again in the place of a session.
func (h *loginHouse) stepUp(session, name string, asked auth.Asked) (LoggedIn, error) {
	h.t.Helper()
	started, err := h.Start(h.t.Context(), StartLogin{Flow: "code", RedirectURI: loginRedirect, From: "192.0.2.1:4711", Session: session, Asked: asked, Note: "n"})
	if err != nil {
		return LoggedIn{}, err
	}
	back, err := provider.LoginAs(h.t.Context(), started.AuthURL, h.key, name)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.Finish(h.t.Context(), FinishLogin{Login: started.Login, Code: back.Get("code"), State: back.Get("state")})
}

// A step-up takes the place of the session that it was for, for the same person alone, and is on the ledger.
func TestStepUpReplacesTheSession(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	weak := h.login("alice")
	strong := auth.Asked{ACR: []string{provider.ACR}, MaxAge: new(time.Duration)}
	// Somebody else's login, however strong, is not alice's.
	if in, err := h.stepUp(weak.Token, "bob", strong); !isCode(err, CodeUnauthenticated) || in.Token != "" || in.Note != "n" {
		t.Fatalf("bob as alice: %+v, %v", in, err)
	}
	if who, err := h.Whoami(t.Context(), weak.Token); err != nil || who.Subject != "alice" {
		t.Fatalf("after a step-up that failed: %+v, %v", who, err)
	}
	in, err := h.stepUp(weak.Token, "alice", strong)
	if err != nil || in.Identity.ACR != provider.ACR || in.Note != "n" {
		t.Fatalf("%+v, %v", in, err)
	}
	if _, err := h.Whoami(t.Context(), weak.Token); !isCode(err, CodeUnauthenticated) {
		t.Errorf("the session before is still good: %v", err)
	}
	if who, err := h.Whoami(t.Context(), in.Token); err != nil || who.ACR != provider.ACR {
		t.Errorf("%+v, %v", who, err)
	}
	// A session that is over has nothing that could be made stronger.
	for _, token := range []string{weak.Token, "curfew_st_nonsense"} {
		if _, err := h.stepUp(token, "alice", strong); !isCode(err, CodeUnauthenticated) {
			t.Errorf("%.12s: %v", token, err)
		}
	}
	if got := h.entries(ledger.TypeLogin); len(got) != 2 {
		t.Errorf("logins on the ledger: %q", got)
	}
}

// An answer that shows less than was asked for is no login.
func TestStepUpThatShowsTooLittle(t *testing.T) {
	h := newLoginHouse(t, time.Hour)
	started, err := h.Start(t.Context(), StartLogin{Flow: "code", RedirectURI: loginRedirect, Asked: auth.Asked{ACR: []string{provider.ACR}}})
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(started.AuthURL)
	q := u.Query()
	q.Del("acr_values") // a provider that does not heed it
	u.RawQuery = q.Encode()
	back, err := provider.LoginAs(t.Context(), u.String(), h.key, "alice")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Finish(t.Context(), FinishLogin{Login: started.Login, Code: back.Get("code"), State: back.Get("state")})
	if !isCode(err, CodeUnauthenticated) || !errors.Is(err, auth.ErrWeak) {
		t.Errorf("%v", err)
	}
	if got := h.entries(ledger.TypeLogin); len(got) != 0 {
		t.Errorf("logins on the ledger: %q", got)
	}
	// What nobody can be asked for.
	for _, asked := range []auth.Asked{{ACR: strings.Split(strings.Repeat("a ", mostAsked+1), " ")}, {MaxAge: func() *time.Duration { d := -time.Second; return &d }()}} {
		if _, err := h.Start(t.Context(), StartLogin{Flow: "code", RedirectURI: loginRedirect, Asked: asked}); !isCode(err, CodeInvalid) {
			t.Errorf("%+v: %v", asked, err)
		}
	}
}

// What follows a step-up takes time as well: a little is kept back of the age that a rule allows.
func TestAsked(t *testing.T) {
	a := Asked(policy.StepUp{ACR: []string{"x"}, AMR: []string{"y"}, Within: 15 * time.Minute})
	if a.MaxAge == nil || *a.MaxAge != 810*time.Second || a.ACR[0] != "x" || a.AMR[0] != "y" {
		t.Errorf("%+v", a)
	}
	if a := Asked(policy.StepUp{AMR: []string{"y"}}); a.MaxAge != nil {
		t.Errorf("an age that nobody wants: %v", *a.MaxAge)
	}
}
