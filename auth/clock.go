package auth

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// The issuer's clock is measured whenever it answers, by the Date of its answer: that has whole seconds and
// was written somewhere between question and answer, and what those two leave open is given to the issuer.
// It is for people to read: nothing is forgiven beyond one minute, however far a clock is known to be off.

// alarmingSkew is a difference that will soon make tokens fail.
const alarmingSkew = 30 * time.Second

// clock is how far one issuer's clock is from ours.
type clock struct {
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	offset time.Duration
	at     time.Time
	told   time.Time // when a difference was last complained of
}

// measure takes an answer's Date.
func (c *clock) measure(h http.Header, asked, answered time.Time) {
	theirs, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset, c.at = apart(theirs, asked, answered), answered
	if c.offset.Abs() < alarmingSkew || !c.told.IsZero() && answered.Sub(c.told) < time.Hour {
		return
	}
	c.told = answered
	c.log.Error("ALERT the issuer's clock and this server's differ; beyond a minute its tokens are refused", "ahead", c.offset.Round(time.Second))
}

// apart is how far a clock is ahead that showed theirs, cut to whole seconds, at some time between the two.
func apart(theirs, asked, answered time.Time) time.Duration {
	switch {
	case theirs.After(answered):
		return theirs.Sub(answered)
	case theirs.Add(time.Second).Before(asked):
		return theirs.Add(time.Second).Sub(asked)
	}
	return 0
}

// apartBy says by how much the clocks differ, where that is why a time was refused: as it was measured, or as far
// as a time of theirs lies ahead of ours. Empty: the clocks have nothing to do with it.
func (c *clock) apartBy(ahead time.Duration) string {
	c.mu.Lock()
	offset := c.offset
	c.mu.Unlock()
	word := "ahead of"
	switch {
	case ahead > skew:
		offset = max(offset, ahead)
	case ahead == 0 && offset <= -skew: // what is over by ours need not be by theirs
		offset, word = -offset, "behind"
	default:
		return ""
	}
	return fmt.Sprintf("the identity provider's clock is %s %s this server's, and %s is forgiven", offset.Round(time.Second), word, skew)
}

// SkewError is a login that came to nothing because the issuer's clock and ours differ too much.
type SkewError struct{ Public string }

func (e *SkewError) Error() string { return e.Public }

// Skew is how far the issuer's clock was ahead of this server's when it last answered, and when that was:
// the least that explains the answer. Zero time: it has not answered yet.
func (p *Provider) Skew() (time.Duration, time.Time) {
	p.clock.mu.Lock()
	defer p.clock.mu.Unlock()
	return p.clock.offset, p.clock.at
}
