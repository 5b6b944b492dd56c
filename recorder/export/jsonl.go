package export

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// joined is what JSONL puts before an event's own fields. None of these names is a field of an event.
type joined struct {
	Session string `json:"session"`
	Grant   string `json:"grant"`
	Request string `json:"request"`
	Person  string `json:"person"` // e-mail
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
	Target  string `json:"target"`
	Level   string `json:"level"`
	Account string `json:"account"`
	Client  string `json:"client"`
	Node    string `json:"node"`
	// and "at", the event's time: the session's beginning and its microseconds; and "intended", inside or
	// outside, on the last line of what was sent to be executed, if the request names the SQL that it is for
}

// JSONL writes each event of each session in scope as one JSON object a line: who, where and when,
// then the event's own fields exactly as they were recorded, so that nothing is lost ("{" and what
// follows the time is the line whose hash is the leaf). What was recorded is shown as it is, whether or
// not it is what the ledger says: proof is Verify's. A recording that can't be read to its end is told
// to progress, which may be nil, and the next one follows.
func JSONL(ctx context.Context, w io.Writer, src Source, scope Scope, progress func(Progress)) error {
	msg, err := src.Ledger.Checkpoint(ctx)
	if err != nil {
		return fmt.Errorf("export: checkpoint: %w", err)
	}
	c, err := ledger.ParseCheckpoint(msg, src.Ledger.VerifierKey())
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	about, err := survey(ctx, src.Ledger, c.Size, scope)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	done, total := 0, len(about.order)
	for _, id := range about.order {
		if !about.in[id] {
			total--
		}
	}
	for _, id := range about.order {
		if !about.in[id] {
			continue
		}
		done++
		var left *unreadable
		err := about.flatten(ctx, out, src, id)
		if err != nil && !errors.As(err, &left) {
			return fmt.Errorf("export: %w", err)
		}
		if progress != nil {
			p := Progress{Session: id, Done: done, Total: total}
			if left != nil {
				p.Err = left.err
			}
			progress(p)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func (c *catalog) flatten(ctx context.Context, out *bufio.Writer, src Source, id string) error {
	s := c.sessions[id]
	g := c.grants[s.Grant]
	j := joined{
		Session: id, Grant: s.Grant, Request: g.Request, Person: g.Person.Email, Issuer: g.Person.Issuer,
		Subject: g.Person.Subject, Target: s.Target, Level: g.Level, Account: s.Account, Client: s.Client, Node: s.Node,
	}
	r, err := src.Recordings.Open(id)
	if err != nil {
		return &unreadable{err}
	}
	defer r.Close()
	head, err := json.Marshal(j)
	if err != nil {
		return err
	}
	head = append(head[:len(head)-1], `,"at":"`...)
	begin := len(head)
	began := s.began
	lines, judge := recorder.NewReader(r), c.judged(src.Dialects, s)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, e, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &unreadable{err}
		}
		if e.Header != nil {
			began = e.Header.Began
		}
		head, err = began.Add(time.Duration(e.Micros) * time.Microsecond).AppendText(head[:begin])
		if err != nil {
			return err
		}
		if err := splice(out, append(head, verdict(judge, &e)...), line); err != nil {
			return err
		}
	}
}

// splice writes a line's own fields behind what is put before them, up to their time.
func splice(out *bufio.Writer, head, line []byte) error {
	own, ok := bytes.CutPrefix(bytes.TrimLeft(line, " \t\r"), []byte("{"))
	if !ok {
		return &unreadable{errors.New("a line is not an object")}
	}
	// bufio.Writer keeps its first error, so the last write tells of all.
	out.Write(head)
	out.WriteString(`",`)
	out.Write(own)
	return out.WriteByte('\n')
}
