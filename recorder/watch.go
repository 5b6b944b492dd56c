package recorder

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultStall is how long one write or sync may take before its recording is given up.
const DefaultStall = 5 * time.Second

// gauge tells whether something is under way, without a clock in the hot path: it is odd between begin
// and end. Who watches it notes when it first saw a number.
type gauge struct {
	turns atomic.Uint64

	seen  uint64    // the watch's own: what turns was at its last look
	since time.Time // and when it was first seen so
}

func (g *gauge) begin() { g.turns.Add(1) }
func (g *gauge) end()   { g.turns.Add(1) }

// lasts gives how long what is under way has been seen to be, 0 if nothing is.
func (g *gauge) lasts(now time.Time) time.Duration {
	n := g.turns.Load()
	if n != g.seen {
		g.seen, g.since = n, now
	}
	if n%2 == 0 {
		return 0
	}
	return now.Sub(g.since)
}

// watch finds what hangs, which no caller can: it is the one that waits. It breaks recordings whose
// write or sync takes too long, knows what else does, and asks a disk that has failed whether it is well.
type watch struct {
	stall   time.Duration
	stop    chan struct{}
	running sync.WaitGroup
	probing atomic.Bool
	looking sync.Mutex // held over a look; guards what gauges have seen

	mu    sync.Mutex // guards what follows
	ops   map[*operation]struct{}
	stuck error // what hangs now, nil if nothing does
}

// operation is anything that is done to the file system but a write or sync of an open recording.
type operation struct {
	op    Op
	path  string
	begun time.Time
}

func newWatch(stall time.Duration) *watch {
	if stall <= 0 {
		stall = DefaultStall
	}
	return &watch{stall: stall, stop: make(chan struct{}), ops: map[*operation]struct{}{}}
}

// note keeps an operation in sight until the func is called.
func (wa *watch) note(op Op, path string) (done func()) {
	o := &operation{op, path, time.Now()}
	wa.mu.Lock()
	wa.ops[o] = struct{}{}
	wa.mu.Unlock()
	return func() {
		wa.mu.Lock()
		delete(wa.ops, o)
		wa.mu.Unlock()
	}
}

// slow gives an operation that takes too long.
func (wa *watch) slow(now time.Time) error {
	wa.mu.Lock()
	defer wa.mu.Unlock()
	for o := range wa.ops {
		if now.Sub(o.begun) > wa.stall {
			return &HangError{o.op, o.path, wa.stall}
		}
	}
	return nil
}

func (wa *watch) set(stuck error) {
	wa.mu.Lock()
	defer wa.mu.Unlock()
	wa.stuck = stuck
}

func (wa *watch) err() error {
	wa.mu.Lock()
	defer wa.mu.Unlock()
	return wa.stuck
}

// HangError says that the disk does not answer: neither done nor failed.
type HangError struct {
	Op   Op
	Path string
	Over time.Duration // it has taken longer than this
}

func (e *HangError) Error() string {
	return fmt.Sprintf("the disk hangs: %s: %s takes longer than %s", e.Path, e.Op, e.Over)
}

// keepWatch looks until the Library is closed.
func (l *Library) keepWatch() {
	tick := time.NewTicker(min(time.Second, l.watch.stall/4))
	defer tick.Stop()
	for {
		select {
		case <-l.watch.stop:
			return
		case <-tick.C:
			l.look(time.Now())
		}
	}
}

// look is one pass of the watch.
func (l *Library) look(now time.Time) {
	l.watch.looking.Lock()
	defer l.watch.looking.Unlock()
	stuck, most := l.watch.slow(now), l.watch.stall
	writers := l.all()
	hung := map[*Writer]error{}
	for _, w := range writers {
		switch {
		case w.writes.lasts(now) > most:
			stuck = &HangError{OpWrite, w.path, most}
		case w.syncs.lasts(now) > most:
			stuck = &HangError{OpSync, w.path, most}
		default:
			continue
		}
		hung[w] = stuck
	}
	l.watch.set(stuck) // before anybody is told that theirs is lost
	for w, err := range hung {
		w.fail(err)
	}
	// While the disk hangs, those whose turn to sync does not come wait for nothing. While it is only
	// slow they are left alone: they get there.
	for _, w := range writers {
		if w.queued.lasts(now) > most && stuck != nil {
			w.fail(&HangError{OpSync, w.path, most})
		}
	}
	if t := l.trouble.Load(); t != nil && stuck == nil && l.watch.probing.CompareAndSwap(false, true) {
		l.watch.running.Go(func() {
			defer l.watch.probing.Store(false)
			if err := l.probe(); err == nil {
				l.trouble.CompareAndSwap(t, nil)
			} else {
				l.trouble.CompareAndSwap(t, &failure{err})
			}
		})
	}
}
