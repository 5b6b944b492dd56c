package postgres

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// frontend is a client that says exactly what a test wants.
type frontend struct {
	w    *wire
	t    *testing.T
	conn net.Conn
	f    *pgproto3.Frontend
	pid  uint32
	key  []byte
}

// frontend logs in by pgx and takes the connection over.
func (w *wire) frontend(extra string) *frontend {
	w.t.Helper()
	c, err := pgx.Connect(w.t.Context(), w.dsn(extra))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.hijack(c.PgConn())
}

func (w *wire) hijack(c *pgconn.PgConn) *frontend {
	w.t.Helper()
	h, err := c.Hijack()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { h.Conn.Close() })
	return &frontend{w: w, t: w.t, conn: h.Conn, f: h.Frontend, pid: h.PID, key: h.SecretKey}
}

func (f *frontend) send(messages ...pgproto3.FrontendMessage) {
	f.t.Helper()
	for _, m := range messages {
		f.f.Send(m)
	}
	if err := f.f.Flush(); err != nil {
		f.t.Fatal(err)
	}
}

// next reads one message.
func (f *frontend) next() (pgproto3.BackendMessage, error) {
	f.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	return f.f.Receive()
}

// until reads until each of these types has come, in order, and gives all types that came.
func (f *frontend) until(types ...byte) string {
	f.t.Helper()
	var seen []byte
	for len(types) > 0 {
		m, err := f.next()
		if err != nil {
			f.t.Fatalf("after %q: %v", seen, err)
		}
		b, err := m.(interface {
			Encode([]byte) ([]byte, error)
		}).Encode(nil)
		if err != nil {
			f.t.Fatal(err)
		}
		seen = append(seen, b[0])
		if b[0] == types[0] {
			types = types[1:]
		}
	}
	return string(seen)
}

// lastWords reads until the server hangs up and gives the last error.
func (f *frontend) lastWords() *pgproto3.ErrorResponse {
	f.t.Helper()
	var last *pgproto3.ErrorResponse
	for {
		m, err := f.next()
		if err != nil {
			if err != io.EOF && err != io.ErrUnexpectedEOF {
				f.t.Fatalf("the connection did not end, but: %v", err)
			}
			f.conn.Close()
			return last
		}
		if e, ok := m.(*pgproto3.ErrorResponse); ok {
			last = &pgproto3.ErrorResponse{}
			*last = *e
		}
	}
}

func (f *frontend) bye() {
	f.t.Helper()
	f.send(&pgproto3.Terminate{})
	f.conn.Close()
	if r := f.w.result(); r.err != nil {
		f.t.Fatalf("the client said goodbye, and the session ended with %v", r.err)
	}
}
