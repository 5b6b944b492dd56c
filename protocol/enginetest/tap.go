package enginetest

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// tap stands between an engine and the server and keeps every byte that goes to the server: what is not in
// it has not reached the database.
type tap struct {
	listen net.Listener
	target string

	mu      sync.Mutex // guards what follows
	streams []*bytes.Buffer
}

// newTap gives the tap and the URL that leads through it.
func newTap(t *testing.T, broker string) (*tap, string) {
	t.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{target: u.Host}
	if p.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := p.listen.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { p.join(conn) })
		}
	})
	t.Cleanup(func() {
		p.listen.Close()
		conns.Wait()
	})
	u.Host = p.listen.Addr().String()
	return p, u.String()
}

func (p *tap) join(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	stream := &bytes.Buffer{}
	p.mu.Lock()
	p.streams = append(p.streams, stream)
	p.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server) // how it ends is seen at both ends
		client.Close()
	})
	_, _ = io.Copy(server, io.TeeReader(client, locked{p, stream}))
	server.Close()
	back.Wait()
}

// saw says whether text has gone to the server.
func (p *tap) saw(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		if bytes.Contains(s.Bytes(), []byte(text)) {
			return true
		}
	}
	return false
}

// locked writes to a stream under the tap's lock.
type locked struct {
	p      *tap
	stream *bytes.Buffer
}

func (l locked) Write(b []byte) (int, error) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.stream.Write(b)
}
