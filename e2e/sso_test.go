package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

const everyScope = "openid email profile"

// byToken logs in with a token of the identity provider, as a stock client does that has never heard of
// Curfew: as an e-mail by the mechanism that the database's clients have for it, or with the token as its
// password.
func (s *town) byToken(ctx context.Context, creds harness.Credentials, user, token string) (conn, error) {
	creds.User, creds.Password = user, token
	if s.kind == "postgres" {
		if strings.HasPrefix(user, "token:") {
			return s.stage.login(ctx, creds)
		}
		creds.Password = ""
		cfg, err := pgx.ParseConfig(creds.URL())
		if err != nil {
			return nil, err
		}
		cfg.OAuthTokenProvider = func(context.Context) (string, error) { return token, nil }
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return pgConn{c}, nil
	}
	// The driver has no plugin for tokens: the engine's own tests play MySQL 9's client.
	creds.User = "token:" + strings.TrimPrefix(user, "token:")
	return myDial(creds.MySQL(ctx, func(cfg *mysql.Config) { cfg.AllowCleartextPasswords = true }))
}

// A token of the person's own provider is enough to connect: no password of Curfew's, no command line of its
// own. It is the person who must have the grant.
func TestTokensAtTheWire(t *testing.T) { everywhere(t, tokensAtTheWire) }

func tokensAtTheWire(t *testing.T, s *town) {
	ids := must(s.curfew.Identities())(t)
	tokens := must(ids.Device(t.Context(), "dana", everyScope))(t)
	where := func(g api.Grant) harness.Credentials { return must(s.dana.Credentials(t.Context(), g.ID))(t) }
	any := must(s.alice.Granted(t.Context(), s.target, "reader", 10*time.Minute, s.bob))(t)
	creds := must(s.alice.Credentials(t.Context(), any.ID))(t)

	_, err := s.byToken(t.Context(), creds, "dana@example.test", tokens.Access)
	saysAll(t, err, "dana@example.test has no active grant here", "curfew request TARGET --level LEVEL")
	_, err = s.byToken(t.Context(), creds, "alice@example.test", tokens.Access)
	saysAll(t, err, "")
	_, err = s.byToken(t.Context(), creds, "token:alice@example.test", tokens.Access)
	saysAll(t, err, "your token is dana@example.test's, and you named")

	first := must(s.dana.Granted(t.Context(), s.target, "reader", 10*time.Minute, s.bob))(t)
	creds = where(first)
	for user, token := range map[string]string{
		"dana@example.test": tokens.Access, "DANA@example.test/" + s.target: tokens.ID, "token:dana@example.test": tokens.ID,
	} {
		c, err := s.byToken(t.Context(), creds, user, token)
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		exec1(t, c, "SELECT 42")
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
	}
	second := must(s.dana.Granted(t.Context(), s.target, "writer", 10*time.Minute, s.bob))(t)
	_, err = s.byToken(t.Context(), creds, "token:dana@example.test", tokens.ID)
	saysAll(t, err, "you have 2 active grants here", first.ID, second.ID, "say which: dana@example.test/g")
	_, err = s.byToken(t.Context(), creds, "token:dana@example.test/nowhere", tokens.ID)
	saysAll(t, err, `no active grant "nowhere" here`, first.ID)
	c := must(s.byToken(t.Context(), creds, "dana@example.test/"+second.ID, tokens.ID))(t)
	if account := s.current(t, c); !strings.Contains(account, second.ID) {
		t.Errorf("she works as %s", account)
	}
	must(s.dana.Run(t.Context(), "release", second.ID))(t)
	s.receipt(t, second.ID, "released")
	if c.run(t.Context(), "SELECT 1") == nil {
		t.Error("the session outlives its grant")
	}
	must(s.dana.Run(t.Context(), "release", first.ID))(t)
	s.receipt(t, first.ID, "released")
	logins := map[string]int{}
	for _, rec := range s.recordings(t, first.ID) {
		logins[rec.header.Login]++
	}
	if want := map[string]int{"postgres": 2}[s.kind]; logins["oauthbearer"] != want || logins["token"] != 3-want {
		t.Errorf("sessions by mechanism: %v", logins)
	}
	_, err = s.byToken(t.Context(), creds, "token:dana@example.test", tokens.ID)
	saysAll(t, err, "no active grant")
	must(s.alice.Run(t.Context(), "release", any.ID))(t)
}

// saysAll holds an error against what somebody should read in it.
func saysAll(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("let in")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\nlacks %q", err, w)
		}
	}
}

// The provider tells that somebody has signed out, and within a second their sessions on every database are
// gone, and their logins; whoever has not signed out is not touched. New keys of the provider's are known with
// the first token that they sign, and a token from before the sign-out is good no more.
func TestSignedOutAtTheProvider(t *testing.T) {
	t.Parallel()
	st := shared.apart(t, shared.stage, shop.stage.url)
	other := st.on(shop.stage)
	ids := must(st.curfew.Identities())(t)
	tokens := must(ids.Device(t.Context(), "alice", everyScope))(t)
	var conns []conn
	var ended []<-chan error
	var grants []string
	for _, s := range []*town{st, other} {
		g, creds, c := s.connected(t, "writer", 10*time.Minute)
		conns, grants = append(conns, c), append(grants, g.ID)
		more := must(s.byToken(t.Context(), creds, "alice@example.test", tokens.Access))(t)
		conns = append(conns, more)
	}
	bobs := must(st.bob.Granted(t.Context(), st.target, "reader", 10*time.Minute, st.alice))(t)
	his := st.enter(t, must(st.bob.Credentials(t.Context(), bobs.ID))(t))
	for i, c := range conns {
		s := []*town{st, st, other, other}[i]
		w := word(t)
		ended = append(ended, goExec(t.Context(), c, s.slowly(w)))
		s.underway(t, w)
	}
	if err := ids.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := ids.SignOut(t.Context(), "alice", st.curfew); err != nil {
		t.Fatal(err)
	}
	for i, done := range ended {
		select {
		case err := <-done:
			saysAll(t, err, "signed out at your identity provider")
		case <-time.After(10 * time.Second):
			t.Fatalf("connection %d goes on", i)
		}
	}
	told := time.Since(began)
	for i, s := range []*town{st, other} {
		r := s.receipt(t, grants[i], "revoked")
		t.Logf("%s: the last backend was gone %s after the provider's word", s.kind, r.Cut.GoneAt.Sub(began).Round(time.Millisecond))
		if late := r.Cut.GoneAt.Sub(began); late > time.Second {
			t.Errorf("%s: %s", s.kind, late)
		}
	}
	if told > time.Second {
		t.Errorf("clients were told after %s", told)
	}
	exec1(t, his, "SELECT 1")
	_, err := st.alice.Run(t.Context(), "whoami")
	refused(t, err, "not, or no longer, good")
	creds := must(st.bob.Credentials(t.Context(), bobs.ID))(t)
	_, err = st.byToken(t.Context(), creds, "token:alice@example.test", tokens.ID)
	saysAll(t, err, "you signed out at the identity provider after it was made")
}

// psql18 finds a psql that gets itself a token: of PostgreSQL 18 or later, with libpq-oauth.
func psql18(t *testing.T) string {
	t.Helper()
	program := must(harness.PostgresProgram("psql"))(t)
	said := string(must(exec.CommandContext(t.Context(), program, "--version").Output())(t)) // psql (PostgreSQL) 18.6 (…)
	f := strings.Fields(said)
	if len(f) < 3 {
		t.Fatalf("psql calls itself %q", said)
	}
	if major, _, _ := strings.Cut(f[2], "."); must(strconv.Atoi(major))(t) < 18 {
		t.Skipf("psql is of PostgreSQL %s, 18 is the first that shows tokens", f[2])
	}
	return program
}

// oauth runs psql 18, whose person confirms what it shows: dana.
func oauth(t *testing.T, program string, ids *harness.Identities, creds harness.Credentials, user, more string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "-X", "-At", "-c", "SELECT current_user",
		fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=verify-full sslrootcert=%s oauth_client_id=curfew-cli %s",
			creds.Host, creds.Port, user, creds.Database, creds.CAFile, more))
	cmd.Env = append(os.Environ(), "PGOAUTHDEBUG=UNSAFE") // this provider has no TLS
	said, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var all strings.Builder
	for lines := bufio.NewScanner(said); lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		// Visit http://127.0.0.1:…/device and enter the code: XXXX-XXXX
		if page, code, ok := strings.Cut(lines.Text(), " and enter the code: "); ok {
			if err := ids.Confirm(t.Context(), strings.TrimPrefix(page, "Visit "), strings.TrimSpace(code), "dana"); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, all.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// psql 18 needs nothing but the provider's address: it asks Curfew where that is described, runs the device flow,
// and comes back with the token.
func TestPsql18(t *testing.T) {
	program := psql18(t)
	t.Parallel()
	s := shared
	ids := must(s.curfew.Identities())(t)
	g := must(s.dana.Granted(t.Context(), s.target, "reader", 10*time.Minute, s.bob))(t)
	creds := must(s.dana.Credentials(t.Context(), g.ID))(t)
	psql := func(user string) (string, error) {
		return oauth(t, program, ids, creds, user, "oauth_issuer="+ids.Issuer)
	}
	for _, user := range []string{"dana@example.test", "oauth:" + g.ID} {
		if out, err := psql(user); err != nil || !strings.Contains(out, g.ID) {
			t.Errorf("%s: %q %v", user, out, err)
		}
	}
	_, err := psql("alice@example.test")
	saysAll(t, err, `OAuth bearer authentication failed for user "alice@example.test"`, "your token is dana@example.test's")
	must(s.dana.Run(t.Context(), "release", g.ID))(t)
	_, err = psql("dana@example.test")
	saysAll(t, err, "dana@example.test has no active grant here", "curfew request")
}

// Curfew can name one issuer only, to a psql that does not say more than a name, and psql holds its own against that.
// Who is at home at another shows a token where the password goes.
func TestPsql18AtAnotherIssuer(t *testing.T) {
	program := psql18(t)
	t.Parallel()
	first := must(harness.StartOutside(t.Context(), harness.Jobs, t.TempDir()))(t)
	t.Cleanup(func() { _ = first.Kill() })
	w := newWorks(t, fmt.Sprintf("  - {url: %q, client_id: curfew, audiences: [curfew]}\n", first.Issuer), "")
	s, ids := w.towns[0], &w.people.Identities
	var r api.Request
	if err := s.dana.JSON(t.Context(), &r, "request", s.target, "--level", "human", "--for", "5m"); err != nil {
		t.Fatal(err)
	}
	_, err := oauth(t, program, ids, s.where(t), "dana@example.test", "oauth_issuer="+ids.Issuer)
	saysAll(t, err, first.Issuer)
	_, err = oauth(t, program, ids, s.where(t), "dana@example.test", "oauth_issuer="+ids.Issuer+"/.well-known/openid-configuration")
	saysAll(t, err, first.Issuer, "incompatible with oauth_issuer")
	tokens := must(w.people.Device(t.Context(), "dana", everyScope))(t)
	if out, err := s.stock(t.Context(), s.where(t), "token:dana@example.test", tokens.ID, "SELECT current_user"); err != nil || !strings.Contains(out, r.Grant) {
		t.Errorf("%q %v", out, err)
	}
}
