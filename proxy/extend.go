package proxy

import (
	"context"
	"fmt"
	"time"
)

// warnings says how long before its grant's end a client is told.
var warnings = [...]time.Duration{5 * time.Minute, time.Minute}

// Extended says that a grant ends later than it was to: its sessions go on, are warned anew before the new
// end, and what the database itself does at the end is moved behind it. It does not wait for that.
func (s *Server) Extended(grant string, end time.Time) {
	t := s.tenures.byID(grant)
	if t == nil {
		return // nobody was here; who comes finds the new end
	}
	if !t.extend(end) {
		return
	}
	for _, l := range s.roll.all() {
		if l.tenure == t {
			l.warn()
		}
	}
	s.tenures.mu.Lock()
	defer s.tenures.mu.Unlock()
	if !s.tenures.draining {
		s.tenures.running.Go(func() { t.moveBackstops(s.tenures.stop) })
	}
}

// extend keeps the later end; false: it is known.
func (t *tenure) extend(end time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !end.After(t.end) {
		return false
	}
	t.end = end
	return true
}

// until is the grant's end as of now.
func (t *tenure) until() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end
}

// moveBackstops has the database follow the grant's new end, and tries that until it is done, the grant is over
// or the node stops: else it would end sessions that may go on, and let nobody in any more.
func (t *tenure) moveBackstops(stop <-chan struct{}) {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		ctx, cancel := context.WithTimeout(t.held, cutTimeout)
		err := t.moveBackstop(ctx)
		cancel()
		if err == nil || t.held.Err() != nil {
			return
		}
		t.log.Error("ALERT the database does not know yet that the grant was extended; it is tried again", "error", err)
		select {
		case <-time.After(wait):
		case <-t.held.Done():
			return
		case <-stop:
			return
		}
	}
}

// moveBackstop does it once. An account that is still to be made is made with the new end.
func (t *tenure) moveBackstop(ctx context.Context) error {
	t.making.Lock()
	defer t.making.Unlock()
	end := t.until()
	if t.account == nil || !end.After(t.spec.End) {
		return nil
	}
	err := t.account.Extend(ctx, end)
	if err == nil {
		t.spec.End = end
		err = t.cfg.Step.Do("account.extended")
	}
	return err
}

// warn shows the client a notice a while before the grant ends; again, after an extension, before the new end.
func (l *life) warn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.link == nil || l.hushed {
		return
	}
	l.still()
	end := l.tenure.until()
	for _, before := range warnings {
		if wait := time.Until(end.Add(-before)); wait > 0 {
			text := fmt.Sprintf("Curfew: your grant ends in %s, at %s; what runs then is cut off. For more time: curfew extend %s",
				durationWords(before), end.UTC().Format("15:04:05 UTC"), l.header.Grant)
			link := l.link
			l.timers = append(l.timers, time.AfterFunc(wait, func() { link.Notify(text) }))
		}
	}
}

// hush ends the warnings.
func (l *life) hush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hushed = true
	l.still()
}

// still stops the timers of the warnings; the caller holds mu.
func (l *life) still() {
	for _, timer := range l.timers {
		timer.Stop()
	}
	l.timers = nil
}

func durationWords(d time.Duration) string {
	if d == time.Minute {
		return "1 minute"
	}
	return fmt.Sprintf("%d minutes", int(d.Minutes()))
}
