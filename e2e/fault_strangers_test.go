package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// from dials from an address of loopback.
func from(ip string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return d.DialContext
}

// inClear is without TLS, which no listener on loopback insists on: then what is on the wire can be looked at.
func inClear(creds harness.Credentials) harness.Credentials {
	creds.SSLMode, creds.CAFile = "disable", ""
	return creds
}

// stranger connects from an address.
func (s *town) stranger(t *testing.T, ip string) net.Conn {
	t.Helper()
	c := must(from(ip)(t.Context(), "tcp", s.listen()))(t)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// vitals is what a process may grow in.
type vitals struct {
	goroutines, descriptors, memory float64
}

func (s *town) vitals(ctx context.Context) (v vitals, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.curfew.Ops+"/metrics", nil)
	if err != nil {
		return v, err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	want := map[string]*float64{"go_goroutines": &v.goroutines, "process_open_fds": &v.descriptors, "process_resident_memory_bytes": &v.memory}
	found := 0
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if at := want[name]; at != nil {
			found++
			if *at, err = strconv.ParseFloat(value, 64); err != nil {
				return v, err
			}
		}
	}
	if found < len(want) {
		return v, fmt.Errorf("metrics tell %d of %d", found, len(want))
	}
	return v, lines.Err()
}

// steady works in a session until it is stopped, and gives the longest that a statement has taken.
func steady(t *testing.T, c conn) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	var longest atomic.Int64
	var side sync.WaitGroup
	side.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			if err := c.run(context.WithoutCancel(ctx), "SELECT 1"); err != nil {
				t.Errorf("a session that works meanwhile: %v", err)
				return
			}
			longest.Store(max(longest.Load(), int64(time.Since(began))))
			time.Sleep(5 * time.Millisecond) // it is a person
		}
	})
	return func() time.Duration {
		cancel()
		side.Wait()
		return time.Duration(longest.Load())
	}
}

// Whatever strangers send, or don't, is their own misfortune: who works meanwhile notices nothing, others
// get in, and when they are gone nothing is left of them.
func TestStrangersAreNobodysMisfortuneButTheirOwn(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		st := s.apart(t, s.stage)
		g, creds, c := st.connected(t, "reader", 10*time.Minute)
		login := st.bytesOfALogin(t, inClear(creds))
		st.waitFor(t, 5*time.Second, func(ctx context.Context) error { // everything has been used once
			again, err := st.login(ctx, creds)
			if err == nil {
				err = again.close()
			}
			return err
		})
		before := must(st.vitals(t.Context()))(t)
		stop := steady(t, c)
		t.Run("all at once", func(t *testing.T) {
			for name, f := range map[string]func(*testing.T, harness.Credentials, []byte){
				"garbage": st.garbage, "half open": st.halfOpen, "slow": st.slow, "cut off at every byte": st.cutAtEveryByte,
				"a thousand at once": st.aThousand, "other protocols": st.otherProtocols,
			} {
				t.Run(name, func(t *testing.T) { t.Parallel(); f(t, creds, login) })
			}
		})
		if longest := stop(); longest > 2*time.Second {
			t.Errorf("a statement of a session that works meanwhile took %s", longest)
		} else {
			t.Logf("the longest statement meanwhile took %s", longest)
		}
		st.waitFor(t, 20*time.Second, func(ctx context.Context) error {
			now, err := st.vitals(ctx)
			if err == nil && (now.goroutines > before.goroutines+5 || now.descriptors > before.descriptors+16 || now.memory > before.memory+64<<20) {
				err = fmt.Errorf("before %+v, now %+v", before, now)
			}
			return err
		})
		exec1(t, st.enter(t, creds), "SELECT 1")
		st.revoke(t, g)
		st.receipt(t, g.ID, "revoked")
	})
}

// othersGetIn: a login from elsewhere works, and at once.
func (s *town) othersGetIn(t *testing.T, creds harness.Credentials) {
	t.Helper()
	began := time.Now()
	c, err := s.loginBy(t.Context(), creds, from("127.0.0.77"))
	if err != nil {
		t.Errorf("somebody else can't log in: %v", err)
		return
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("somebody else's login took %s", took)
	}
	if err := errors.Join(c.run(t.Context(), "SELECT 1"), c.close()); err != nil {
		t.Error(err)
	}
}

// heard reads until a stranger is hung up on, and gives what it was sent.
func heard(t *testing.T, c net.Conn, patience time.Duration) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("not hung up on within %s", patience)
	}
	return all
}

// lies are messages that are not as long as they say, after a beginning as it should be.
func (s *stage) lies(login []byte) map[string][]byte {
	with := func(head []byte, rest ...byte) []byte { return append(slices.Clone(head), rest...) }
	if s.my != nil {
		return map[string][]byte{
			"an endless packet": with(nil, 0xff, 0xff, 0xff, 1), "an empty one": with(nil, 0, 0, 0, 1),
			"out of turn": with(nil, 4, 0, 0, 9, 1, 2, 3, 4), "short": with(nil, 1, 0, 0, 1, 0x8d),
			"a length beyond the end": with(login[:36], 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		}
	}
	n := int(login[2])<<8 | int(login[3])
	return map[string][]byte{
		"no length": with(nil, 0, 0, 0, 0, 0, 3, 0, 0), "a negative one": with(nil, 0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0),
		"too short a one": with(nil, 0, 0, 0, 7, 0, 3, 0, 0), "an endless one": with(nil, 0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0),
		"no end of a text":    with(nil, 0, 0, 0, 12, 0, 3, 0, 0, 'u', 's', 'e', 'r'),
		"an endless password": with(login[:n], 'p', 0x7f, 0xff, 0xff, 0xff), "a negative password": with(login[:n], 'p', 0xff, 0xff, 0xff, 0xff),
		"another message": with(login[:n], 'Q', 0, 0, 0, 5, 0),
	}
}

func (s *town) garbage(t *testing.T, creds harness.Credentials, login []byte) {
	random := make([]byte, 1<<16)
	_, _ = rand.Read(random) // never fails
	kinds := s.lies(login)
	for name, b := range map[string][]byte{
		"nothing": nil, "zeros": make([]byte, 4096), "ones": []byte(strings.Repeat("\xff", 4096)), "random": random, "little": random[:37],
		"text": []byte(strings.Repeat("x", 1<<20)), "HTTP": []byte("GET / HTTP/1.1\r\nHost: db\r\n\r\n"), "TLS": {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"SSH": []byte("SSH-2.0-OpenSSH_9.2\r\n"), "LDAP": {0x30, 0x0c, 2, 1, 1, 0x60, 7, 2, 1, 3, 4, 0, 0x80, 0},
	} {
		kinds[name] = b
	}
	for name, b := range kinds {
		c := s.stranger(t, "127.0.0.3")
		_, _ = c.Write(b) // it may have been hung up on already
		_ = c.(*net.TCPConn).CloseWrite()
		if got := heard(t, c, 15*time.Second); len(got) > 4096 {
			t.Errorf("%s: answered with %d bytes", name, len(got))
		}
	}
	s.othersGetIn(t, creds)
}

// halfOpen: many that say nothing, or stop at their first byte, are in nobody's way, and are let go.
func (s *town) halfOpen(t *testing.T, creds harness.Credentials, login []byte) {
	var all []net.Conn
	for i := range 300 {
		c := s.stranger(t, "127.0.0.9")
		if i%2 == 0 {
			_, _ = c.Write(login[:1])
		}
		all = append(all, c)
	}
	s.othersGetIn(t, creds)
	for _, c := range all {
		heard(t, c, 25*time.Second)
	}
}

// slow: one byte a second is no login.
func (s *town) slow(t *testing.T, creds harness.Credentials, login []byte) {
	c := s.stranger(t, "127.0.0.8")
	began := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for _, b := range login {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return
			}
		}
	}()
	heard(t, c, 20*time.Second)
	if took := time.Since(began); took < 5*time.Second || took > 15*time.Second {
		t.Errorf("hung up on after %s", took)
	}
}

// bytesOfALogin is what a driver sends until it is in.
func (s *town) bytesOfALogin(t *testing.T, creds harness.Credentials) []byte {
	t.Helper()
	var sent tape
	c := must(s.loginBy(t.Context(), creds, func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := from("127.0.0.1")(ctx, network, addr)
		return taped{raw, &sent}, err
	}))(t)
	login := sent.cut()
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if len(login) < 50 {
		t.Fatalf("a login of %d bytes", len(login))
	}
	return login
}

// tape keeps what is written; taped writes to it.
type tape struct {
	mu  sync.Mutex
	all []byte
	got int // bytes that came back
}

func (b *tape) cut() []byte { b.mu.Lock(); defer b.mu.Unlock(); return slices.Clone(b.all) }

type taped struct {
	net.Conn
	tape *tape
}

func (c taped) Write(b []byte) (int, error) {
	c.tape.mu.Lock()
	c.tape.all = append(c.tape.all, b...)
	c.tape.mu.Unlock()
	return c.Conn.Write(b)
}

func (c taped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tape.mu.Lock()
	c.tape.got += n
	c.tape.mu.Unlock()
	return n, err
}

func (s *town) cutAtEveryByte(t *testing.T, creds harness.Credentials, login []byte) {
	for n := range login {
		c, err := from("127.0.0.4")(t.Context(), "tcp", s.listen())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(login[:n])
		if n%3 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset
		}
		_ = c.Close()
	}
	s.othersGetIn(t, creds)
}

func (s *town) aThousand(t *testing.T, creds harness.Credentials, login []byte) {
	var all []net.Conn
	for range 1000 {
		all = append(all, s.stranger(t, "127.0.0.5"))
	}
	s.othersGetIn(t, creds)
	for _, c := range all {
		_, _ = c.Write(login[:1])
	}
	s.othersGetIn(t, creds)
	for _, c := range all {
		_ = c.Close()
	}
	s.othersGetIn(t, creds)
}

func (s *town) otherProtocols(t *testing.T, creds harness.Credentials, _ []byte) {
	if res, err := http.Get("http://" + s.listen()); err == nil {
		_ = res.Body.Close()
		t.Error("HTTP was answered")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	raw := s.stranger(t, "127.0.0.6")
	if err := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx); err == nil {
		t.Error("TLS was answered")
	}
	wrong := shop.stage
	if s.my != nil {
		wrong = shared.stage
	}
	if _, err := wrong.loginBy(ctx, creds, func(ctx context.Context, network, _ string) (net.Conn, error) {
		return from("127.0.0.6")(ctx, network, s.listen())
	}); err == nil {
		t.Error("another database's client got in")
	}
}

// Who guesses passwords is not looked at any more after some, and reads what anybody reads whose password is
// wrong. The rightful holder gets in from elsewhere all the while, and from there as well when some time has
// passed. The ledger says how many failed, and from where.
func TestGuessingPasswords(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		st := s.apart(t, s.stage)
		g, creds, c := st.connected(t, "reader", 10*time.Minute)
		wrong := creds
		wrong.Password = "guess"
		try := func(creds harness.Credentials, ip string) error {
			c, err := st.loginBy(t.Context(), creds, from(ip))
			if err == nil {
				_ = c.close()
			}
			return err
		}
		first := try(wrong, "127.0.0.2")
		if first == nil || !strings.Contains(first.Error(), st.denied) {
			t.Fatalf("a wrong password: %v", first)
		}
		for range 11 {
			if err := try(wrong, "127.0.0.2"); err == nil || err.Error() != first.Error() {
				t.Errorf("another wrong password: %v, the first %v", err, first)
			}
		}
		locked := time.Now()
		if err := try(creds, "127.0.0.2"); err == nil || err.Error() != first.Error() {
			t.Errorf("the right one from where they were guessed: %v", err)
		}
		if err := try(creds, "127.0.0.1"); err != nil {
			t.Errorf("the right one from elsewhere: %v", err)
		}
		other, others := st.asked(t, "reader")
		if err := try(others, "127.0.0.2"); err != nil {
			t.Errorf("somebody else from where they were guessed: %v", err)
		}
		st.waitFor(t, 30*time.Second, func(context.Context) error { return try(creds, "127.0.0.2") })
		t.Logf("looked at again after %s", time.Since(locked).Round(time.Second))
		exec1(t, c, "SELECT 1")
		for _, g := range []string{g.ID, other.ID} {
			must(st.alice.Run(t.Context(), "release", g))(t)
			st.receipt(t, g, "released")
		}
		if err := st.curfew.Stop(); err != nil { // what was counted is on the ledger when the minute is over, or now
			t.Fatal(err)
		}
		if err := st.curfew.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		text := string(must(os.ReadFile(filepath.Join(st.exported(t), "ledger.jsonl")))(t))
		failed := 0
		for line := range strings.Lines(text) {
			if strings.Contains(line, `"logins.failed"`) && strings.Contains(line, `"127.0.0.2"`) {
				_, rest, _ := strings.Cut(line, `"count":`)
				n, _ := strconv.Atoi(strings.TrimRight(strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })[0], " "))
				failed += n
			}
		}
		if failed < 13 {
			t.Errorf("%d failed logins from there are on the ledger, want 13 at least", failed)
		}
	})
}

// Nothing tells a stranger who exists, nor who is locked out: not what is said, not how much, not how long it
// takes.
func TestNobodyLearnsWhoExists(t *testing.T) {
	everywhere(t, func(t *testing.T, s *town) {
		st := s.apart(t, s.stage)
		_, creds, _ := st.connected(t, "reader", 10*time.Minute)
		wrong := inClear(creds)
		wrong.Password = "guess"
		nobody := wrong
		nobody.User = creds.User[:len(creds.User)-4] + "0000"
		for range 12 {
			_, _ = st.loginBy(t.Context(), wrong, from("127.0.0.2"))
		}
		type told struct {
			said    string
			size    int
			fastest time.Duration
		}
		kinds := map[string]*told{"known": {}, "unknown": {}, "locked out": {}}
		apart := func() (names []string) {
			for name, k := range kinds {
				if (k.fastest - kinds["known"].fastest).Abs() > time.Millisecond {
					names = append(names, fmt.Sprintf("%s takes %s, known %s", name, k.fastest, kinds["known"].fastest))
				}
			}
			return names
		}
		// What a busy machine adds goes away when one looks often enough; what the answer takes stays.
		for i := 0; i < 60 || i < 600 && len(apart()) > 0; i++ {
			for name, k := range kinds {
				who, ip := wrong, fmt.Sprintf("127.%d.%d.1", 1+i/250, i%250)
				switch name {
				case "unknown":
					who, ip = nobody, fmt.Sprintf("127.%d.%d.2", 1+i/250, i%250)
				case "locked out":
					who, ip = inClear(creds), "127.0.0.2"
				}
				var both tape
				began := time.Now()
				_, err := st.loginBy(t.Context(), who, func(ctx context.Context, network, addr string) (net.Conn, error) {
					raw, err := from(ip)(ctx, network, addr)
					return taped{raw, &both}, err
				})
				took := time.Since(began)
				if err == nil {
					if name == "locked out" { // its time is over, and what it would be told next is another thing
						delete(kinds, name)
						continue
					}
					t.Fatalf("%s: in", name)
				}
				said := strings.NewReplacer(who.User, "USER", ip, "ADDRESS", ipOf(err.Error()), "ADDRESS").Replace(err.Error())
				both.mu.Lock()
				size := both.got - len(ipOf(err.Error()))
				both.mu.Unlock()
				if k.said == "" {
					*k = told{said, size, took}
				}
				if said != k.said || size != k.size {
					t.Errorf("%s: told %q in %d bytes, and before %q in %d", name, said, size, k.said, k.size)
				}
				k.fastest = min(k.fastest, took)
			}
		}
		known := kinds["known"]
		for name, k := range kinds {
			if k.said != known.said || k.size != known.size {
				t.Errorf("%s is told %q in %d bytes, known %q in %d", name, k.said, k.size, known.said, known.size)
			}
			t.Logf("%s: %s", name, k.fastest)
		}
		for _, difference := range apart() {
			t.Error(difference)
		}
	})
}

// ipOf is the client's address in an error, if it is there.
func ipOf(text string) string {
	_, rest, found := strings.Cut(text, "'@'")
	if !found {
		return "\x00"
	}
	ip, _, _ := strings.Cut(rest, "'")
	return ip
}
