package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// attendEvery is how often the sessions that go on are looked at: whether they idle, whether they can
// still be recorded, and what they have moved.
const attendEvery = 250 * time.Millisecond

// Live is what there is to know of a session that goes on here.
type Live struct {
	Session, Grant         string
	FromClient, FromServer uint64        // bytes, of the protocol as it is spoken inside TLS
	Statements             uint64        // on record so far
	Idle                   time.Duration // since a byte passed or a request waited for its answer
}

// roll is who is here: the sessions that go on, by id.
type roll struct {
	metrics *metrics

	mu   sync.Mutex // guards byID; never held across a call that can wait
	byID map[string]*life
}

// life is a session from its recording's first line until it has ended.
type life struct {
	header recorder.Header
	idle   idling
	tenure *tenure         // of its grant
	own    context.Context // ends when the session is to, with the reason as its cause
	end    context.CancelCauseFunc
	meter  *meter

	mu    sync.Mutex // guards what follows
	link  protocol.Link
	usage protocol.Usage // at the last look
	told  counts         // what the metrics have been told
	moved time.Time      // when something was last seen to happen

	timers []*time.Timer // of the warnings that are still to come
	hushed bool          // none are any more
}

// counts is what the metrics add up over a session.
type counts struct{ fromClient, fromServer, statements, blocked uint64 }

func newRoll(m *metrics) *roll { return &roll{metrics: m, byID: map[string]*life{}} }

// enter puts a session on the roll; the func takes it off.
func (r *roll) enter(l *life) (leave func()) {
	l.moved = time.Now()
	r.mu.Lock()
	r.byID[l.header.Session] = l
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		delete(r.byID, l.header.Session)
		r.mu.Unlock()
		l.look(r.metrics, time.Now())
	}
}

func (r *roll) find(session string) *life {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[session]
}

func (r *roll) all() []*life {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*life, 0, len(r.byID))
	for _, l := range r.byID {
		all = append(all, l)
	}
	return all
}

// attend looks at every session that goes on.
func (r *roll) attend() {
	now := time.Now()
	for _, l := range r.all() {
		if why := l.look(r.metrics, now); why != nil {
			l.end(why)
		}
	}
}

// joined says that the session has reached its database.
func (l *life) joined(link protocol.Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link, l.moved = link, time.Now()
}

// look sees what has happened since the last look, and gives the reason to end the session, if there is
// one. A transaction that is open and does nothing idles like anything else: it holds locks.
func (l *life) look(m *metrics, now time.Time) (why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var usage protocol.Usage
	if l.link != nil {
		usage = l.link.Usage()
	}
	if usage.InFlight || usage != l.usage {
		l.moved = now
	}
	l.usage = usage
	seen := counts{usage.FromClient, usage.FromServer, l.meter.statements.Load(), l.meter.blocked.Load()}
	m.moved(l.header.Target, l.told, seen)
	l.told = seen
	select {
	case <-l.meter.Lost():
		return unrecorded()
	default:
	}
	if l.link != nil && l.idle.most > 0 && now.Sub(l.moved) >= l.idle.most {
		return idled(l.idle.by, l.idle.most, l.tenure.until())
	}
	return nil
}

func (l *life) live(now time.Time) Live {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := Live{Session: l.header.Session, Grant: l.header.Grant, Statements: l.meter.statements.Load(), Idle: max(0, now.Sub(l.moved))}
	if l.link != nil {
		usage := l.link.Usage()
		v.FromClient, v.FromServer = usage.FromClient, usage.FromServer
		if usage.InFlight || usage != l.usage {
			v.Idle = 0
		}
	}
	return v
}

// Live tells of a session that goes on here.
func (s *Server) Live(session string) (Live, bool) {
	l := s.roll.find(session)
	if l == nil {
		return Live{}, false
	}
	return l.live(time.Now()), true
}

// Kill ends a session by a person's word, which its client reads; the grant goes on. False: it does not
// go on here, or is ending for another reason.
func (s *Server) Kill(session, public string) bool {
	l := s.roll.find(session)
	if l == nil {
		return false
	}
	why := &protocol.Refusal{Code: recorder.EndKilled, Public: public}
	l.end(why)
	return context.Cause(l.own) == error(why)
}

// unrecorded is what a client reads whose recording was lost.
func unrecorded() *protocol.Refusal {
	return &protocol.Refusal{Code: recorder.EndRecord,
		Public: "what you do here can't be recorded any more, so your session was ended; your grant goes on: try again later, or tell your Curfew administrator"}
}

// idled is what a client reads that did nothing for too long.
func idled(by string, most time.Duration, until time.Time) *protocol.Refusal {
	return &protocol.Refusal{Code: recorder.EndIdle, Public: fmt.Sprintf(
		"your session did nothing for %s, and %s allows no more; your grant goes on until %s: connect again when you need it",
		spanWords(most), by, until.UTC().Format("15:04:05 UTC"))}
}

// spanWords writes a duration as people do: 1h30m, not 1h30m0s.
func spanWords(d time.Duration) string {
	s := d.String()
	if d >= time.Minute && d%time.Minute == 0 {
		s = s[:len(s)-len("0s")]
	}
	if d >= time.Hour && d%time.Hour == 0 {
		s = s[:len(s)-len("0m")]
	}
	return s
}
