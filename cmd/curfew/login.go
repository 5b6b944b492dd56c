package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/internal/provider"
)

type loginFlags struct {
	issuer    string
	device    bool
	as        string
	mfa       bool
	noBrowser bool
}

func newLogin(a *app) *cobra.Command {
	var f loginFlags
	c := &cobra.Command{
		Use:   "login",
		Short: "Log in with your identity provider",
		Long: `Logs in with your identity provider, in a browser on this machine, or with --device in a
browser anywhere. What is kept is a session token of Curfew's own, in a file that only you
can read (` + "$CURFEW_HOME/session.json" + `); the provider's tokens stay with the server.`,
		Example: `  curfew login --server https://curfew.example.com
  curfew login --device             # no browser on this machine
  curfew login --as alice           # a demo identity of curfew dev
  curfew login --as alice --mfa     # with a second factor, as rules may demand it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), f) },
	}
	c.Flags().StringVar(&f.issuer, "issuer", "", "URL of the identity provider, when the server knows several")
	c.Flags().BoolVar(&f.device, "device", false, "type a code into a browser on another machine")
	c.Flags().StringVar(&f.as, "as", "", "log in to curfew dev as one of its demo identities, without a browser")
	c.Flags().BoolVar(&f.mfa, "mfa", false, "with --as: log in with a second factor, too")
	c.Flags().BoolVar(&f.noBrowser, "no-browser", false, "print the address only, don't open a browser")
	c.MarkFlagsMutuallyExclusive("device", "as")
	return c
}

func (a *app) login(ctx context.Context, f loginFlags) error {
	if _, err := a.format("table", "json"); err != nil {
		return err
	}
	var dev *devFile
	if f.as != "" {
		d, err := a.loadDev()
		if err != nil {
			return err
		}
		dev = &d
		a.server, a.ca = first(a.server, a.env("CURFEW_SERVER"), d.API), first(a.ca, d.CA)
	}
	s, err := a.resolve()
	if err != nil {
		return err
	}
	s.Token = ""
	c, err := a.clientFor(s)
	if err != nil {
		return err
	}
	start := api.LoginStart{Issuer: f.issuer}
	s.Flow, s.As = "", f.as
	switch {
	case f.mfa && dev == nil:
		return problem(exitUsage, "usage", "--mfa is for --as", "a provider of your own asks for what it wants")
	case f.mfa:
		start.ACRValues = []string{provider.ACR}
	case f.device:
		s.Flow = "device"
	}
	in, err := a.enter(ctx, c, &s, dev, start, f.noBrowser)
	if err != nil {
		return err
	}
	return a.print(map[string]any{"server": s.Server, "expires": in.Expires, "person": in.Person}, func(w io.Writer) {
		fmt.Fprintf(w, "Logged in at %s as %s until %s.\n", s.Server, visible(s.Email), a.when(in.Expires))
	})
}

// enter logs in as the session says, and keeps what comes of it.
func (a *app) enter(ctx context.Context, c *api.Client, s *session, dev *devFile, start api.LoginStart, noBrowser bool) (in api.LoggedIn, err error) {
	ctx, stop := context.WithTimeout(ctx, 15*time.Minute)
	defer stop()
	switch {
	case dev != nil:
		in, err = a.loginAs(ctx, c, *dev, s.As, start)
	case s.Flow == "device":
		in, err = a.loginDevice(ctx, c, start)
	default:
		in, err = a.loginBrowser(ctx, c, start, noBrowser)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return in, problem(exitLogin, api.CodeUnauthenticated, "nobody finished the login within 15 minutes", "try again: curfew login")
	}
	if err != nil {
		return in, err
	}
	s.Token, s.Expires = in.Token, in.Expires
	if in.Person != nil {
		s.Email = in.Person.Email
	}
	return in, a.saveSession(*s)
}

// stepUp logs in again, as the last time, because more has to be shown; the new session takes the old one's
// place.
func (a *app) stepUp(ctx context.Context, s session, p *api.Problem) (string, error) {
	var dev *devFile
	if s.As != "" {
		d, err := a.loadDev()
		if err != nil {
			return "", err
		}
		dev = &d
	}
	c, err := a.clientFor(s)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(a.stderr, "%s: logging in again.\n", visible(p.Detail))
	_, err = a.enter(ctx, c, &s, dev, p.StepUp(), false)
	return s.Token, err
}

func (a *app) loginDevice(ctx context.Context, c *api.Client, start api.LoginStart) (api.LoggedIn, error) {
	start.Flow = "device"
	started, err := c.StartLogin(ctx, start)
	if err != nil {
		return api.LoggedIn{}, err
	}
	fmt.Fprintf(a.stderr, "Open %s in any browser and type this code: %s\n", visible(started.VerificationURI), visible(started.UserCode))
	if started.VerificationURIComplete != "" {
		fmt.Fprintf(a.stderr, "Or open this, which has the code in it: %s\n", visible(started.VerificationURIComplete))
	}
	interval := max(time.Duration(started.Interval), time.Second)
	for {
		in, err := c.FinishLogin(ctx, api.LoginFinish{Login: started.Login})
		if err != nil || !in.Pending {
			return in, err
		}
		select {
		case <-ctx.Done():
			return in, ctx.Err()
		case <-time.After(interval):
		}
	}
}

// loginBrowser is the authorization code flow for native apps (RFC 8252): the provider sends the browser
// back to a port of this machine. Curfew's server holds the PKCE secret and does the exchange.
func (a *app) loginBrowser(ctx context.Context, c *api.Client, start api.LoginStart, noBrowser bool) (api.LoggedIn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return api.LoggedIn{}, err
	}
	defer l.Close()
	start.Flow, start.RedirectURI = "code", "http://"+l.Addr().String()+"/callback"
	started, err := c.StartLogin(ctx, start)
	if err != nil {
		return api.LoggedIn{}, err
	}
	got := make(chan url.Values, 1)
	srv := &http.Server{Handler: callbackPage(started.State, got), ReadHeaderTimeout: 10 * time.Second}
	go srv.Serve(l) //nolint:errcheck // it ends with Close below
	defer srv.Close()

	fmt.Fprintf(a.stderr, "Log in with your browser: %s\n", visible(started.AuthURL))
	if !noBrowser {
		openBrowser(ctx, started.AuthURL)
	}
	select {
	case <-ctx.Done():
		return api.LoggedIn{}, ctx.Err()
	case q := <-got:
		return finishCode(ctx, c, started, q)
	}
}

func finishCode(ctx context.Context, c *api.Client, started api.LoginStarted, q url.Values) (api.LoggedIn, error) {
	if q.Get("state") != started.State {
		return api.LoggedIn{}, problem(exitLogin, api.CodeUnauthenticated, "the provider's answer belongs to another login", "try again: curfew login")
	}
	if code := q.Get("error"); code != "" {
		return api.LoggedIn{}, problem(exitLogin, api.CodeUnauthenticated,
			fmt.Sprintf("the provider refused the login: %s %s", code, q.Get("error_description")), "try again: curfew login")
	}
	return c.FinishLogin(ctx, api.LoginFinish{Login: started.Login, Code: q.Get("code"), State: q.Get("state"), Issuer: q.Get("iss")})
}

// callbackPage takes the provider's answer once, and only the one that belongs to this login: any page
// in the person's browser can call the port.
func callbackPage(state string, got chan<- url.Values) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		w.Header().Set("Referrer-Policy", "no-referrer")
		if r.URL.Path != "/callback" || q.Get("state") != state {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		said := "You are back with Curfew; look at the terminal. This window can be closed."
		if e := q.Get("error"); e != "" {
			said = "The login failed: " + html.EscapeString(e) + ". Look at the terminal."
		}
		fmt.Fprintf(w, "<!doctype html><title>Curfew</title><p>%s</p>\n", said)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case got <- q:
		default: // answered already
		}
	})
}

// openBrowser tries; the address was printed, so nothing is lost when there is no browser.
func openBrowser(ctx context.Context, address string) {
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	if cmd.Start() == nil {
		go cmd.Wait() //nolint:errcheck // only so that it leaves no zombie
	}
}
