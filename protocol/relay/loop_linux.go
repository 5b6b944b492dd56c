//go:build amd64 || arm64

package relay

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Loops carry the sessions whose both ends are plain sockets: each is one goroutine that
// waits for all of its sessions in an epoll set of its own, and never for one of them: no message wakes
// another goroutine or Go's poller. The zero
// value is ready. Loops begin with the first session and end with the last.
type Loops struct {
	buffers buffers // shared by all sessions, on a loop or not

	mu   sync.Mutex // guards what follows
	live []*loop
}

const (
	// tick is how often it is looked after a loop that is at work. A driver that is in one and the same
	// call of an observer at three looks in a row holds up the other sessions no longer.
	tick = 50 * time.Millisecond
	// yieldEvery is how many waits there are for one turn of Go's scheduler. It takes the processor from
	// whoever gives it none for 10 ms, and then its monitor stays awake, looking out for more.
	yieldEvery = 64
	// superseded is the turn of a driver that has lost its loop.
	superseded = ^uint64(0)
	// wake is what the epoll set gives for the descriptor that ends the loop.
	wake = -1
)

// most is how many loops there are at most: the other half of the machine is the database's, and Curfew's
// own for all that is not forwarding.
func most() int { return max(1, runtime.NumCPU()/2) }

// Sessions is how many sessions the loops carry: those that are not among them have goroutines of their own.
func (l *Loops) Sessions() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.live {
		n += c.taken
	}
	return n
}

// loop is an epoll set and what is in it.
type loop struct {
	all   *Loops
	epoll int
	event int // an eventfd; readable when the loop is to end

	watched atomic.Bool // watch is going to look
	watcher *time.Timer

	mu      sync.Mutex // guards what follows; taken before a seat's
	seats   []*seat    // by number; nil where one is free
	taken   int
	ended   bool // no seat is taken any more, and none can be
	driver  *driver
	seen    uint64 // driver's turn when watch looked last
	repeats int    // how often in a row it was that
}

// join gives s a place on the loop that has the fewest.
func (l *Loops) join(s *seat) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var to *loop
	for _, c := range l.live {
		if to == nil || c.taken < to.taken {
			to = c
		}
	}
	if to == nil || to.taken > 0 && len(l.live) < most() {
		fresh, err := newLoop(l)
		if err != nil {
			return err
		}
		l.live = append(l.live, fresh)
		to = fresh
	}
	to.add(s)
	return nil
}

// leave frees the place of s, and ends its loop if it was the last there.
func (l *Loops) leave(s *seat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.loop.remove(s) {
		return
	}
	for i, c := range l.live {
		if c == s.loop {
			l.live = append(l.live[:i], l.live[i+1:]...)
			return
		}
	}
}

func newLoop(all *Loops) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wake})
		if err != nil {
			unix.Close(event)
		}
	}
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	l := &loop{all: all, epoll: epoll, event: event}
	l.watcher = time.AfterFunc(time.Hour, l.watch)
	l.watcher.Stop()
	l.drive()
	return l, nil
}

// drive gives the loop a driver; mu is held, or nobody else knows the loop yet.
func (l *loop) drive() {
	l.driver = &driver{loop: l, buf: l.all.buffers.take()}
	l.seen, l.repeats = 0, 0
	go l.driver.run()
}

func (l *loop) add(s *seat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.loop, s.number = l, len(l.seats)
	for i, other := range l.seats {
		if other == nil {
			s.number = i
			break
		}
	}
	if s.number == len(l.seats) {
		l.seats = append(l.seats, nil)
	}
	l.seats[s.number] = s
	l.taken++
}

// remove says whether that was the last one, and ends the loop then.
func (l *loop) remove(s *seat) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seats[s.number] = nil
	l.taken--
	if l.taken > 0 {
		return false
	}
	l.ended = true
	one := [8]byte{1}
	unix.Write(l.event, one[:]) // fails only when it has been written to 2^64 times
	return true
}

// watch looks whether the driver still is where it was.
func (l *loop) watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	d := l.driver
	turn := d.turn.Load()
	switch {
	case turn != l.seen:
		l.seen, l.repeats = turn, 0
	case turn&1 == 0: // it waits for its sessions, and calls when there is something again
		l.watched.Store(false)
		if d.turn.Load() == turn {
			return
		}
		l.watched.Store(true)
	default:
		l.repeats++
		if l.repeats == 2 && d.turn.CompareAndSwap(turn, superseded) {
			d.at.lose(d.side)
			l.drive()
		}
	}
	l.watcher.Reset(tick)
}

// driver is a goroutine that drives a loop, until the loop ends or an observer holds it up for so long that
// another takes its place.
type driver struct {
	loop *loop
	buf  *[BufferSize]byte // what is read goes in here, unless a direction has a buffer of its own

	turn atomic.Uint64 // odd while an observer is called
	at   *seat         // whose, when it was called last
	side int           // and who it is that had sent something
	gone bool          // another has taken its place; it ends with the session that it has in hand
}

// run drives until the loop has ended or is lost. The goroutine is not locked to its thread: nothing asks
// for the thread itself, and a locked one costs two hand-overs whenever Go's scheduler wants its turn.
func (d *driver) run() {
	defer d.loop.all.buffers.give(d.buf)
	var events [128]syscall.EpollEvent
	var seats [len(events)]*seat
	for rounds := 1; !d.gone; rounds++ {
		if rounds%yieldEvery == 0 {
			runtime.Gosched()
		}
		n, err := syscall.EpollWait(d.loop.epoll, events[:], -1)
		if err != nil {
			continue // a signal; nothing else can be wrong with a set that is ours alone
		}
		if d.loop.find(events[:n], seats[:]) {
			return
		}
		for i := 0; i < n && !d.gone; i++ {
			if s := seats[i]; s != nil {
				d.handle(s, int(events[i].Fd)&1, events[i].Events)
			}
		}
		clear(seats[:n])
	}
}

// find looks up whom events are for. It closes the loop if it has ended, and says so.
func (l *loop) find(events []syscall.EpollEvent, seats []*seat) (ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		l.watcher.Stop()
		unix.Close(l.epoll)
		unix.Close(l.event)
		return true
	}
	for i := range events {
		if fd := events[i].Fd; fd != wake {
			seats[i] = l.seats[fd>>1]
		}
	}
	return false
}

// handle deals with what one side of a session is ready for.
func (d *driver) handle(s *seat, side int, events uint32) {
	if events&^unix.EPOLLIN != 0 {
		s.flush(side)
	}
	d.step(s, side)
}

// enter notes that an observer is about to be called.
func (d *driver) enter(s *seat, side int) {
	if d.gone {
		return
	}
	d.at, d.side = s, side
	d.turn.Add(1)
	if l := d.loop; !l.watched.Load() {
		l.watched.Store(true)
		l.watcher.Reset(tick)
	}
}

// left notes that it has returned, and finds out whether that took too long.
func (d *driver) left() {
	if d.gone {
		return
	}
	turn := d.turn.Load()
	d.gone = turn == superseded || !d.turn.CompareAndSwap(turn, turn+1)
}
