package mysql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol/crew"
)

// probeAgain is how long a failed probe answers for those that come right behind it.
const probeAgain = time.Second

// server is what a server says of itself in its greeting, the same to everybody.
type server struct {
	version      string // as it came; MariaDB 10's begins with "5.5.5-"
	mariadb      bool
	major, minor int
	caps         capability
	charset      byte
	status       uint16
	plugin       string // its default authentication plugin
}

// greeting is a server's first packet.
type greeting struct {
	server
	id       uint32 // of the connection
	scramble []byte // for the default plugin
}

// parseGreeting reads a HandshakeV10.
func parseGreeting(payload []byte) (g greeting, err error) {
	malformed := errors.New("malformed greeting")
	if len(payload) == 0 || payload[0] != 10 {
		return g, errors.New("the server does not speak protocol version 10")
	}
	version, b, ok := cstring(payload[1:])
	if !ok || len(b) < 31 { // up to the second part of the scramble
		return g, malformed
	}
	g.id = binary.LittleEndian.Uint32(b)
	g.scramble = append(g.scramble, b[4:12]...)
	g.caps = capability(binary.LittleEndian.Uint16(b[13:])) | capability(binary.LittleEndian.Uint16(b[18:]))<<16
	g.charset, g.status = b[15], binary.LittleEndian.Uint16(b[16:])
	size := int(b[20])
	g.version = string(version)
	g.mariadb = strings.Contains(g.version, "MariaDB")
	g.major, g.minor = versionOf(g.version)
	if g.mariadb && g.caps&capLongPassword == 0 {
		g.caps |= capability(binary.LittleEndian.Uint32(b[27:])) << 32
	}
	const need = capProtocol41 | capSecureConnection | capPluginAuth
	if g.caps&need != need {
		return g, errors.New("the server is too old: it lacks the protocol of MySQL 4.1 or authentication plugins")
	}
	b = b[31:]
	second := max(13, size-8)
	if len(b) < second {
		return g, malformed
	}
	g.scramble = append(g.scramble, b[:12]...) // and NUL, and what nobody sends
	plugin, _, ok := cstring(b[second:])
	if !ok {
		plugin = b[second:] // some have it end with the packet
	}
	g.plugin = string(plugin)
	return g, nil
}

// versionOf gives the numbers of a version: 10, 11 for "5.5.5-10.11.6-MariaDB".
func versionOf(text string) (major, minor int) {
	text = strings.TrimPrefix(text, "5.5.5-") // what MariaDB 10 puts in front for old replicas
	first, rest, _ := strings.Cut(text, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, _ = strconv.Atoi(first)
	minor, _ = strconv.Atoi(second)
	return major, minor
}

// prober knows what a target's server says of itself, because clients are greeted before anything else
// is known. It asks once, again when the broker's connection had to be made anew (the server may have been
// restarted as another), and learns from every login that sees another greeting.
type prober struct {
	target *target
	turn   crew.Token // the right to ask

	mu     sync.Mutex // guards what follows
	known  *server
	failed error // of the last probe, for those that come within probeAgain
	until  time.Time
}

func newProber(t *target) *prober {
	return &prober{target: t, turn: crew.NewToken()}
}

// server gives what the server says of itself; if it was never seen, it is asked.
func (p *prober) server(ctx context.Context) (server, error) {
	if s, err := p.cached(); s != nil || err != nil {
		return deref(s), err
	}
	if err := p.turn.Take(ctx); err != nil {
		return server{}, err
	}
	defer p.turn.Give()
	if s, err := p.cached(); s != nil || err != nil { // whoever had the turn has asked
		return deref(s), err
	}
	return p.renew(ctx)
}

// again asks the server although it is known: it may be another one by now.
func (p *prober) again(ctx context.Context) (server, error) {
	if err := p.turn.Take(ctx); err != nil {
		return server{}, err
	}
	defer p.turn.Give()
	return p.renew(ctx)
}

// renew asks the server. The caller has the turn.
func (p *prober) renew(ctx context.Context) (server, error) {
	s, err := p.ask(ctx)
	if err != nil {
		if ctx.Err() == nil {
			p.mu.Lock()
			p.failed, p.until = err, time.Now().Add(probeAgain)
			p.mu.Unlock()
		}
		return server{}, err
	}
	p.saw(s)
	return s, nil
}

func deref(s *server) server {
	if s == nil {
		return server{}
	}
	return *s
}

func (p *prober) cached() (*server, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil && p.failed != nil && time.Now().Before(p.until) {
		return nil, p.failed
	}
	return p.known, nil
}

// saw notes what a server said of itself.
func (p *prober) saw(s server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.failed = &s, nil
}

// ask reads the server's greeting and leaves. The server counts that as a connection that was aborted,
// which is why nobody asks twice without need.
func (p *prober) ask(ctx context.Context) (server, error) {
	ctx, cancel := context.WithTimeout(ctx, p.target.timeout)
	defer cancel()
	conn, err := dial(ctx, p.target)
	if err != nil {
		return server{}, err
	}
	defer conn.Close()
	defer watch(ctx, conn)()
	g, err := readGreeting(&packetReader{conn: conn})
	if err != nil {
		return server{}, fmt.Errorf("%s: %w", p.target.address, err)
	}
	return g.server, nil
}

// readGreeting reads a server's first packet.
func readGreeting(r *packetReader) (g greeting, err error) {
	payload, err := r.read(limitBeforeLogin)
	if err != nil {
		return g, err
	}
	if len(payload) > 0 && payload[0] == packetErr {
		return g, parseServerError(payload, capProtocol41)
	}
	return parseGreeting(payload)
}
