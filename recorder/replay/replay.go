// Package replay shows a recording on a terminal, at the pace it was made or faster.
//
// What a caller may rely on: whatever was recorded, nothing of it is obeyed by the terminal. Control
// characters, direction marks and bytes that are no UTF-8 are shown as what they are (\x1b, \u202e,
// \xff), line breaks and tabs of statements as such. Nothing is left out: long statements are shown
// whole, wrapped where a width is given. Memory is bounded whatever the recording's size.
package replay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// Options of Play. The zero value plays at the recording's own pace.
type Options struct {
	Speed  float64       // 2 is twice as fast; 0 is 1
	Idle   time.Duration // the longest pause, after Speed; 0 is as long as it was
	NoWait bool          // no pauses
	Width  int           // columns to wrap at; 0 wraps nothing
	Color  bool          // ANSI colours
	Start  time.Duration // begin with what happened here, counted from the session's begin
	Until  time.Duration // stop before what happened here; 0 is the end
	Find   string        // only events that hold this text, as recorder.Reader.Find has it, without pauses
}

// Play reads a recording's lines from r, as recorder.Library.Open gives them, and writes it to w. It
// ends with ctx. A recording that breaks off is shown up to there, and the error says where. If r is a
// recorder.Text, what is before Start or does not hold Find is not decoded, and not all of it is looked at: what is
// wrong there goes unnoticed.
func Play(ctx context.Context, w io.Writer, r io.Reader, o Options) error {
	if o.Speed < 0 {
		return fmt.Errorf("replay at speed %v", o.Speed)
	}
	if o.Speed == 0 {
		o.Speed = 1
	}
	o.NoWait = o.NoWait || o.Find != ""
	p := &player{out: newScreen(bufio.NewWriter(w), o.Width, o.Color), o: o, texts: map[uint64]string{}}
	p.lines = recorder.NewReader(r)
	return p.play(ctx)
}

type player struct {
	out   *screen
	o     Options
	began time.Time
	clock time.Duration // where in the recording the viewer is
	lines *recorder.Reader

	texts map[uint64]string // beginnings of prepared statements, to show them where they run
	order []uint64          // their numbers, oldest first
	first uint64            // number of the first statement that came by
	open  partKey           // the field that parts continue on the screen
}

type partKey struct {
	of    uint64
	field string
	index int
}

// keepTexts bounds how many prepared statements are remembered, keepText how much of each.
const (
	keepTexts = 4096
	keepText  = 200
)

func (p *player) play(ctx context.Context) error {
	for {
		_, e, err := p.lines.Next()
		if err == io.EOF {
			return p.out.end()
		}
		if err != nil {
			p.out.end()
			return err
		}
		at := time.Duration(e.Micros) * time.Microsecond
		if e.Erased != "" {
			at = p.clock // its time went with it
		}
		if p.o.Until > 0 && at >= p.o.Until && e.Seq > 0 {
			return p.out.end()
		}
		if e.Seq == 0 {
			p.seek()
		}
		p.remember(&e)
		if at < p.o.Start && e.Seq > 0 {
			continue
		}
		if err := p.wait(ctx, at); err != nil {
			p.out.end()
			return err
		}
		p.show(&e, at)
		if err := p.out.err; err != nil {
			return err
		}
	}
}

// seek goes on where the options say.
func (p *player) seek() {
	if p.o.Start > 0 {
		p.lines.Jump(p.o.Start)
	}
	p.lines.Find([]byte(p.o.Find))
}

// wait lets the time pass that passed between the event before and this one.
func (p *player) wait(ctx context.Context, at time.Duration) error {
	from := max(p.clock, p.o.Start)
	p.clock = max(p.clock, at)
	if err := ctx.Err(); err != nil {
		return err
	}
	pause := time.Duration(float64(at-from) / p.o.Speed)
	if p.o.Idle > 0 {
		pause = min(pause, p.o.Idle)
	}
	if p.o.NoWait || pause <= 0 {
		return nil
	}
	if err := p.out.flush(); err != nil {
		return err
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// remember keeps the beginning of a statement's text for those that refer to it.
func (p *player) remember(e *recorder.Event) {
	if e.Type != recorder.TypeStatement {
		return
	}
	if p.first == 0 {
		p.first = e.ID
	}
	text := beginning(e)
	switch {
	case e.Kind == recorder.KindPrepare:
	case e.Of > 0 && len(text) == 0 && e.Kind == recorder.KindBind:
		text = p.before(e.Of)
	default:
		return
	}
	if text != "" {
		p.keep(e.ID, text)
	}
}

func beginning(e *recorder.Event) string { return string(e.Text[:min(len(e.Text), keepText)]) }

func (p *player) keep(id uint64, text string) {
	if len(p.order) == keepTexts {
		delete(p.texts, p.order[0])
		p.order = p.order[1:]
	}
	p.texts[id] = text
	p.order = append(p.order, id)
}

// before is the beginning of a prepared statement's text, given its number or that of a bind of it. If it was
// passed over it is looked up.
func (p *player) before(of uint64) string {
	text, known := p.texts[of]
	passed := p.o.Find != "" || p.o.Start > 0 && of < p.first
	if known || of == 0 || !passed {
		return text
	}
	for id, steps := of, 0; steps < 2; steps++ {
		e, ok := p.lines.Statement(id)
		if !ok {
			break
		}
		if text = beginning(&e); text != "" || e.Kind != recorder.KindBind || e.Of == 0 {
			break
		}
		id = e.Of
	}
	p.keep(of, text)
	return text
}

func (p *player) show(e *recorder.Event, at time.Duration) {
	if e.Erased != "" {
		p.begin(at, dim, "erased")
		p.out.text(plain, "event "+fmt.Sprint(e.Seq)+"; hash "+e.Erased)
		return
	}
	switch e.Type {
	case recorder.TypeHeader:
		p.header(e.Header)
	case recorder.TypeAttached:
		p.attached(e, at)
	case recorder.TypeStatement:
		p.statement(e, at)
	case recorder.TypePart:
		p.part(e, at)
	case recorder.TypeResult:
		p.result(e, at)
	case recorder.TypeCopy:
		p.copied(e, at)
	case recorder.TypeNotice:
		p.notice(e, at)
	case recorder.TypeCancel:
		p.begin(at, yellow, "cancel")
		p.out.text(plain, join(" ", about(e.Of), prefix("asked by ", e.From)))
	case recorder.TypeBlocked:
		p.begin(at, red, "BLOCKED")
		p.out.text(plain, join(" ", about(e.Of), e.Reason))
	case recorder.TypeEnd:
		p.end(e.End, at)
	default:
		p.begin(at, dim, string(e.Type))
	}
}

// begin starts the lines of an event: its time, and a word that says what it is.
func (p *player) begin(at time.Duration, c color, what string) {
	p.open = partKey{}
	p.out.begin(clock(at), c, what)
}
