package main

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"
)

// notifier tells the service manager how Curfew is: one datagram a time, as sd_notify(3) describes. Without
// a manager that listens it does nothing.
type notifier struct {
	socket string
	every  time.Duration // how often the manager wants to hear that all is well; 0: never
}

func newNotifier(env func(string) string) notifier {
	n := notifier{socket: env("NOTIFY_SOCKET")}
	if strings.HasPrefix(n.socket, "@") { // of the abstract namespace
		n.socket = "\x00" + n.socket[1:]
	}
	if usec, err := strconv.ParseInt(env("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		n.every = time.Duration(usec) * time.Microsecond / 3
	}
	return n
}

// say sends one state, such as READY=1.
func (n notifier) say(state string) error {
	if n.socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}

// watchdog tells the manager that all is well, as long as it is, until ctx ends. A manager that does not
// hear it starts the process anew.
func (n notifier) watchdog(ctx context.Context, alive func() error) error {
	if n.socket == "" || n.every == 0 {
		return nil
	}
	tick := time.NewTicker(n.every)
	defer tick.Stop()
	for {
		if alive() == nil {
			_ = n.say("WATCHDOG=1") // one that is lost is made up for by the next
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
