package intended

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// Session judges one recording, event by event.
type Session struct {
	judge   *Judge
	dialect recorder.Dialect
	keys    map[string][]int
	id      string
	began   time.Time

	texts   ring[text]  // of prepared statements
	bound   ring[text]  // those of what was bound of them
	open    ring[text]  // whose parts are still to come
	pending ring[*sent] // whose results are still to come
}

// text is what is known of one that can be executed.
type text struct {
	execute bool // at once, not when something says so
	long    bool // longer than is looked at
	at      int64
	whole   []byte // while parts are to come
	parts   []part
}

type part struct {
	shown string
	plans []int
	in    bool
}

// sent is a statement, or a text of several, that was sent to be executed.
type sent struct {
	id      uint64
	at      int64
	parts   []part
	results int
	failed  string
}

// Session begins the next recording of the grant. Its header says which engine it is of.
func (j *Judge) Session() *Session {
	j.report.Sessions++
	return &Session{judge: j}
}

// Read judges a whole recording, as recorder.Library.Open gives it, until ctx ends.
func (s *Session) Read(ctx context.Context, r io.Reader) error {
	lines := recorder.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, e, err := lines.Next()
		if errors.Is(err, io.EOF) {
			s.Close()
			return nil
		}
		if err != nil {
			s.Close()
			return err
		}
		s.See(&e)
	}
}

// See takes the next event. If a text that is executed is complete with it, it says whether all of it is inside.
func (s *Session) See(e *recorder.Event) (v Verdict, complete bool) {
	switch {
	case e.Erased != "":
		s.judge.report.Erased++
	case e.Type == recorder.TypeHeader:
		s.id, s.began = e.Header.Session, e.Header.Began
		s.dialect = s.judge.dialects[e.Header.Engine]
		s.keys = s.judge.prepare(s.dialect)
	case e.Type == recorder.TypeStatement:
		return s.statement(e)
	case e.Type == recorder.TypePart && e.Field == recorder.FieldText:
		return s.part(e)
	case e.Type == recorder.TypeResult || e.Type == recorder.TypeCopy && len(e.Code) > 0:
		s.result(e)
	case e.Type == recorder.TypeBlocked:
		s.stopped(e.Of)
	}
	return "", false
}

func (s *Session) statement(e *recorder.Event) (Verdict, bool) {
	switch e.Kind {
	case recorder.KindSimple, recorder.KindPrepare:
		t := text{execute: e.Kind == recorder.KindSimple, at: e.Micros, whole: append([]byte(nil), e.Text...)}
		if e.More {
			s.open.max = 4 // a client sends one after another
			s.open.put(e.ID, t)
			return "", false
		}
		return s.complete(e.ID, t)
	case recorder.KindBind:
		if t, ok := s.texts.get(e.Of); ok {
			s.bound.put(e.ID, t)
		}
	case recorder.KindExecute:
		t, ok := s.bound.get(e.Of)
		if !ok {
			t, ok = s.texts.get(e.Of)
		}
		if !ok {
			t.parts = []part{{shown: "(a statement whose text is not told)"}}
		}
		return s.send(e.ID, e.Micros, t.parts)
	case recorder.KindFunction:
		return s.send(e.ID, e.Micros, []part{{shown: beginning(e.Text)}})
	case recorder.KindCommand:
		return s.command(e)
	}
	return "", false
}

// command judges one that is no SQL and does what SQL could do; others change and show nothing.
func (s *Session) command(e *recorder.Event) (Verdict, bool) {
	switch name := string(e.Name); name {
	case "ping", "quit", "statistics", "set_option", "reset_connection", "stmt_close", "stmt_reset", "stmt_fetch", "stmt_send_long_data":
		return "", false
	case "init_db":
		return s.complete(e.ID, text{execute: true, at: e.Micros, whole: append([]byte("use "), e.Text...)})
	default:
		return s.send(e.ID, e.Micros, []part{{shown: strings.TrimSpace("command " + name + " " + beginning(e.Text))}})
	}
}

func (s *Session) part(e *recorder.Event) (Verdict, bool) {
	t, ok := s.open.get(e.Of)
	if !ok {
		return "", false
	}
	if len(t.whole)+len(e.Text) > maxText {
		t.long = true
	} else if !t.long {
		t.whole = append(t.whole, e.Text...)
	}
	if e.More {
		s.open.put(e.Of, t)
		return "", false
	}
	s.open.drop(e.Of)
	return s.complete(e.Of, t)
}

// complete judges a text of which everything is there.
func (s *Session) complete(id uint64, t text) (Verdict, bool) {
	if t.long || len(t.whole) > maxText {
		t.parts = []part{{shown: beginning(t.whole)}}
	} else {
		for _, one := range split(s.dialect, t.whole) {
			plans, in := s.keys[one.key]
			t.parts = append(t.parts, part{shown: beginning(one.text), plans: plans, in: in})
		}
	}
	t.whole = nil
	if !t.execute {
		s.texts.put(id, t)
		return "", false
	}
	return s.send(id, t.at, t.parts)
}

// send keeps what was sent to be executed until it is known what became of it.
func (s *Session) send(id uint64, at int64, parts []part) (Verdict, bool) {
	if len(parts) == 0 { // comments alone
		return "", false
	}
	if old := s.pending.put(id, &sent{id: id, at: at, parts: parts}); old != nil {
		s.decide(old, len(old.parts))
	}
	for _, p := range parts {
		if !p.in {
			return Outside, true
		}
	}
	return Inside, true
}

// result notes one of what was sent: each statement gives one at least, and none comes behind an error.
func (s *Session) result(e *recorder.Event) {
	p, ok := s.pending.get(e.Of)
	if !ok {
		return
	}
	p.results++
	p.failed = string(e.Code)
	if p.failed != "" || p.results >= len(p.parts) {
		s.pending.drop(e.Of)
		executed := len(p.parts)
		if p.failed != "" {
			executed = min(p.results, executed)
		}
		s.decide(p, executed)
	}
}

// stopped notes that Curfew let no more of it pass.
func (s *Session) stopped(of uint64) {
	if p, ok := s.pending.get(of); ok {
		s.pending.drop(of)
		s.decide(p, min(p.results, len(p.parts)))
	}
}

// decide says of what was sent that its first so many statements were executed. What nothing is known of was.
func (s *Session) decide(p *sent, executed int) {
	for i, one := range p.parts {
		l := Line{Session: s.id, ID: p.id, At: s.began.Add(time.Duration(p.at) * time.Microsecond).UTC(), Text: one.shown, Verdict: Outside}
		switch {
		case i >= executed:
			l.Verdict = NotExecuted
		case one.in:
			l.Verdict = Inside
		}
		if i == executed-1 {
			l.Error = p.failed
		}
		s.judge.add(l, one.plans)
	}
}

// Close ends the recording: what has no result by now gets none.
func (s *Session) Close() {
	for _, id := range s.pending.order {
		if p, ok := s.pending.get(id); ok {
			s.decide(p, len(p.parts))
		}
	}
	s.pending = ring[*sent]{}
}

// ring keeps the newest of many by their numbers.
type ring[T any] struct {
	max   int // 0: many
	all   map[uint64]T
	order []uint64
}

const many = 1 << 14

func (r *ring[T]) get(id uint64) (v T, ok bool) {
	v, ok = r.all[id]
	return v, ok
}

// put adds one, and gives the one that had to go for it.
func (r *ring[T]) put(id uint64, v T) (gone T) {
	if r.all == nil {
		r.all = map[uint64]T{}
	}
	limit := r.max
	if limit == 0 {
		limit = many
	}
	if _, ok := r.all[id]; !ok {
		for len(r.order) >= limit { // some may have been dropped already
			if old, ok := r.all[r.order[0]]; ok {
				gone = old
				delete(r.all, r.order[0])
			}
			r.order = r.order[1:]
		}
		r.order = append(r.order, id)
	}
	r.all[id] = v
	return gone
}

func (r *ring[T]) drop(id uint64) { delete(r.all, id) }
