package enginetest

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// midway: a session's connection breaks off at every byte of what either side sends in it. Whatever was on
// its way, the session ends, its backend goes, and what its transaction wrote is not there.
func midway(t *testing.T, s *suite) {
	t.Run("from the client", func(t *testing.T) { s.breaksOff(t, false) })
	t.Run("from the server", func(t *testing.T) { s.breaksOff(t, true) })
	t.Run("a slow reader", s.slowReader)
	t.Run("a thousand strangers", s.thousandStrangers)
}

// shortStory is a transaction that is never committed.
func shortStory(mark string) []string {
	return []string{"BEGIN", "INSERT INTO marks (what) VALUES ('" + mark + "')", "SELECT 'a row', 'and another column'"}
}

func (s *suite) breaksOff(t *testing.T, fromServer bool) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	mark := s.mark("midway")
	tell := func(most int) (int, *session) {
		var cut *breaking
		var in atomic.Bool
		c, err := s.connect(t, func(ctx context.Context) (net.Conn, error) {
			if in.Load() { // some drivers cancel on a new connection what they give up
				return nil, net.ErrClosed
			}
			conn, err := n.toNode(ctx)
			cut = &breaking{Conn: conn, fromServer: fromServer, left: -1}
			return cut, err
		}, g.spec.Grant, g.password)
		in.Store(true)
		if err != nil {
			t.Fatal(err)
		}
		ss := wait(t, "the session begins", g.began)
		cut.arm(most)
		for _, statement := range shortStory(mark) {
			if c.exec(statement) != nil {
				break
			}
		}
		c.vanish()
		return cut.total(), ss
	}
	length, ss := tell(-1)
	wait(t, "the session ends", ss.done)
	step := 1
	if raceDetector { // every second byte is enough where each takes ten times as long
		step = 2
	}
	for most := 0; most < length; most += step {
		_, ss := tell(most)
		wait(t, fmt.Sprintf("the session ends that broke off after %d bytes", most), ss.done)
		if ss.err == nil || ss.killed != nil {
			t.Errorf("after %d of %d bytes: Relay returned %v, Kill %v", most, length, ss.err, ss.killed)
		}
	}
	if left := s.backends(t, g.spec.Name); left != 0 {
		t.Errorf("%d backends are left", left)
	}
	if rows := s.rows(t, mark); rows != 0 {
		t.Errorf("%d rows were committed", rows)
	}
}

// breaking is a client's connection that breaks off after so many bytes of one direction. A driver may read,
// write and say goodbye in goroutines of its own.
type breaking struct {
	net.Conn
	fromServer bool

	mu    sync.Mutex // guards what follows
	left  int        // negative: it holds
	armed bool
	moved int
}

func (b *breaking) arm(left int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left, b.armed, b.moved = left, true, 0
}

// room gives how many of n bytes may still pass in a direction.
func (b *breaking) room(fromServer bool, n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.armed || b.fromServer != fromServer || b.left < 0 {
		return n
	}
	return min(n, b.left-b.moved)
}

func (b *breaking) passed(fromServer bool, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.armed && b.fromServer == fromServer {
		b.moved += n
	}
}

func (b *breaking) total() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.moved
}

func (b *breaking) Write(p []byte) (int, error) {
	n, err := b.Conn.Write(p[:b.room(false, len(p))])
	b.passed(false, n)
	if err == nil && n < len(p) {
		b.Conn.Close()
		return n, net.ErrClosed
	}
	return n, err
}

func (b *breaking) Read(p []byte) (int, error) {
	room := b.room(true, len(p))
	if room == 0 && len(p) > 0 {
		b.Conn.Close()
		return 0, net.ErrClosed
	}
	n, err := b.Conn.Read(p[:room])
	b.passed(true, n)
	return n, err
}

// slowReader: a client that takes in nothing of a large result holds up its own session alone, which ends
// when its grant does.
func (s *suite) slowReader(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	c, ss := g.dial(t)
	rows, err := c.conn.QueryContext(c.ctx, "SELECT a.what FROM (SELECT '"+fmt.Sprintf("%0100d", 1)+"' AS what) a"+largeJoin)
	if err != nil {
		t.Fatal(err)
	}
	_ = rows.Next() // and no more
	other, beside := g.dial(t)
	other.must("SELECT 1")
	why := refusal("expired")
	began := time.Now()
	g.end(why)
	wait(t, "the session of the slow reader ends", ss.stopped)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	_ = rows.Close()
	wait(t, "it is over", ss.done)
	wait(t, "so is the one beside it", beside.done)
	if left := s.backends(t, g.spec.Name); left != 0 {
		t.Errorf("%d backends are left", left)
	}
}

// largeJoin makes a hundred thousand rows of one, in SQL that every engine knows.
const largeJoin = " CROSS JOIN (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10) b" +
	" CROSS JOIN (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10) c" +
	" CROSS JOIN (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10) d" +
	" CROSS JOIN (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10) e" +
	" CROSS JOIN (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10) f"

// thousandStrangers: who comes and goes without a word leaves nothing behind in memory.
func (s *suite) thousandStrangers(t *testing.T) {
	n := s.node(t)
	round := func(strangers int) {
		for range strangers {
			conn, err := n.toNode(n.ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte("\x00\x00\x00\x08\xff\xff\xff\x7f\x7f")) // a length of 2 GiB for one, of what is no login for the other
			conn.Close()
			_ = wait(t, "it is turned away", n.turned)
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round(50)
	before := heap()
	round(1000)
	if after := heap(); after > before+4<<20 {
		t.Errorf("after 1,000 strangers the heap has grown from %d to %d bytes", before, after)
	}
}
