package harness

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// Mail is one message as it came to a Mailbox.
type Mail struct{ To, Text string }

// Mailbox is a mail server that takes everything and keeps it.
type Mailbox struct {
	Addr string

	l    net.Listener
	open sync.WaitGroup

	mu  sync.Mutex // guards all
	all []Mail
}

// OpenMailbox starts one.
func OpenMailbox() (*Mailbox, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &Mailbox{Addr: l.Addr().String(), l: l}
	m.open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.open.Go(func() { m.serve(c) })
		}
	})
	return m, nil
}

// Close ends it.
func (m *Mailbox) Close() error {
	err := m.l.Close()
	m.open.Wait()
	return err
}

func (m *Mailbox) serve(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // what fails after it is a mail that does not come
	in, to := bufio.NewScanner(c), []string(nil)
	fmt.Fprint(c, "220 here\r\n")
	for in.Scan() {
		line := in.Text()
		switch word, _, _ := strings.Cut(strings.ToUpper(line), " "); word {
		case "RCPT":
			to = append(to, line[strings.Index(line, "<")+1:strings.LastIndex(line, ">")])
			fmt.Fprint(c, "250 ok\r\n")
		case "DATA":
			fmt.Fprint(c, "354 go on\r\n")
			var text strings.Builder
			for in.Scan() && in.Text() != "." {
				text.WriteString(in.Text() + "\n")
			}
			m.mu.Lock()
			for _, one := range to {
				m.all = append(m.all, Mail{one, text.String()})
			}
			m.mu.Unlock()
			to = nil
			fmt.Fprint(c, "250 ok\r\n")
		case "QUIT":
			fmt.Fprint(c, "221 bye\r\n")
			return
		default:
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

// Await gives the first mail that holds all these words, when it has come.
func (m *Mailbox) Await(ctx context.Context, words ...string) (found Mail, err error) {
	err = Eventually(ctx, 20*time.Second, func(context.Context) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, mail := range m.all {
			missing := false
			for _, w := range words {
				missing = missing || !strings.Contains(mail.Text, w)
			}
			if !missing {
				found = mail
				return nil
			}
		}
		return fmt.Errorf("%d mails, none with %q", len(m.all), words)
	})
	return found, err
}

// All gives every mail so far.
func (m *Mailbox) All() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Mail(nil), m.all...)
}
