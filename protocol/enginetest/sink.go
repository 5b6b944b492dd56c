package enginetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/curfewdb/curfew/recorder"
)

// memory is a Sink that keeps copies.
type memory struct {
	before func(recorder.Event) error // asked before an event is kept; may hang

	mu     sync.Mutex // guards events
	events []recorder.Event
}

func (m *memory) Record(events ...recorder.Event) error {
	for _, e := range events {
		if m.before != nil {
			if err := m.before(e); err != nil {
				return err
			}
		}
		m.mu.Lock()
		m.events = append(m.events, copyOf(e))
		m.mu.Unlock()
	}
	return nil
}

func copyOf(e recorder.Event) recorder.Event {
	for _, b := range []*[]byte{&e.Text, &e.Name, &e.Portal, &e.Prepares, &e.Tag, &e.Code, &e.Message, &e.SHA256, &e.Severity} {
		*b = bytes.Clone(*b)
	}
	e.Params = slices.Clone(e.Params)
	for i := range e.Params {
		e.Params[i].Name, e.Params[i].Value = bytes.Clone(e.Params[i].Name), bytes.Clone(e.Params[i].Value)
	}
	return e
}

func (m *memory) all() []recorder.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

func (m *memory) of(typ recorder.Type) []recorder.Event {
	return slices.DeleteFunc(m.all(), func(e recorder.Event) bool { return e.Type != typ })
}

// holds says whether text stands in a statement or a parameter that is on record.
func (m *memory) holds(text string) bool { return holds(m.all(), text) }

func holds(events []recorder.Event, text string) bool {
	for _, e := range events {
		if bytes.Contains(e.Text, []byte(text)) {
			return true
		}
		for _, p := range e.Params {
			if bytes.Contains(p.Value, []byte(text)) {
				return true
			}
		}
	}
	return false
}

// statement gives the id of the last statement whose text or parameters hold text; with bind and execute
// apart, that of the execute.
func (m *memory) statement(text string) uint64 {
	var id uint64
	for _, e := range m.of(recorder.TypeStatement) {
		if holds([]recorder.Event{e}, text) || id != 0 && e.Of == id && e.Kind != recorder.KindSimple {
			id = e.ID
		}
	}
	return id
}

// whole puts long statements and parameters together again.
func whole(events []recorder.Event) (list []recorder.Event) {
	for _, e := range events {
		if e.Type != recorder.TypePart || len(list) == 0 {
			list = append(list, e)
			continue
		}
		for i := range list {
			s := &list[i]
			switch {
			case s.Type != recorder.TypeStatement || s.ID != max(e.ID, e.Of):
			case e.Field == recorder.FieldText:
				s.Text = append(s.Text, e.Text...)
			case len(e.Params) > 0 && e.Index < len(s.Params):
				s.Params[e.Index].Value = append(s.Params[e.Index].Value, e.Params[0].Value...)
				s.Params = append(s.Params, e.Params[1:]...)
			}
		}
	}
	return list
}

// show writes an event as a golden expectation has it: kind, parameters, rows, and nothing that differs
// from run to run. A text that is the line's own reads SQL.
func show(e recorder.Event, sql string) string {
	var b strings.Builder
	switch e.Type {
	case recorder.TypeStatement:
		fmt.Fprintf(&b, "%s", e.Kind)
		switch {
		case len(e.Text) == 0:
		case string(e.Text) == sql:
			b.WriteString(" SQL")
		default:
			fmt.Fprintf(&b, " %s", short(e.Text))
		}
	case recorder.TypeResult:
		fmt.Fprintf(&b, "result rows=%d", e.Rows)
		if len(e.Code) > 0 {
			fmt.Fprintf(&b, " code=%s", e.Code)
		}
		if e.Errno != 0 {
			fmt.Fprintf(&b, " errno=%d", e.Errno)
		}
		if e.InsertID != 0 {
			fmt.Fprintf(&b, " id=%d", e.InsertID)
		}
		if e.Warnings != 0 {
			fmt.Fprintf(&b, " warnings=%d", e.Warnings)
		}
		if e.Tx != recorder.TxUnknown {
			fmt.Fprintf(&b, " %s", e.Tx)
		}
	default:
		fmt.Fprintf(&b, "%s", e.Type)
	}
	for _, p := range e.Params {
		switch {
		case p.Null:
			fmt.Fprintf(&b, " %s=null", p.Type)
		case p.Hex:
			fmt.Fprintf(&b, " %s=hex:%x", p.Type, p.Value)
		default:
			fmt.Fprintf(&b, " %s=%s", p.Type, short(p.Value))
		}
	}
	return b.String()
}

// short quotes a text, or says how long it is.
func short(text []byte) string {
	if len(text) > 200 {
		return fmt.Sprintf("(%d bytes)", len(text))
	}
	return fmt.Sprintf("%q", text)
}
