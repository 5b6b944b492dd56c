package proxy

import (
	"fmt"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// limited is the sink of a session that may read only so much.
type limited struct {
	*meter
	limits policy.Limits
	life   *life
}

var _ protocol.Limiter = (*limited)(nil)

// sink is where a session's events go, with the limits of its grant.
func (l *life) sink(limits policy.Limits) protocol.Sink {
	if limits.Rows == 0 && limits.Bytes == 0 {
		return l.meter
	}
	return &limited{meter: l.meter, limits: limits, life: l}
}

// Read implements protocol.Limiter.
func (l *limited) Read(rows, bytes uint64) error {
	what := ""
	switch {
	case l.limits.Rows > 0 && rows > l.limits.Rows:
		what = fmt.Sprintf("%d rows", l.limits.Rows)
	case l.limits.Bytes > 0 && bytes > l.limits.Bytes:
		what = fmt.Sprintf("%d bytes", l.limits.Bytes)
	default:
		return nil
	}
	return &protocol.Refusal{Code: recorder.EndLimit, Public: fmt.Sprintf(
		"the rule that gave your grant lets a session read %s, and this would have been more; your grant goes on until %s: connect again and ask for less",
		what, l.life.tenure.until().UTC().Format("15:04:05 UTC"))}
}

// idleOf is how long a session may do nothing: what its level and its rule say, whichever is less.
func idleOf(g policy.Grant) idling {
	level, rule := idling{most: g.Can.Idle, by: g.Level}, idling{most: g.Limits.Idle, by: "the rule that gave your grant"}
	if level.most == 0 || rule.most > 0 && rule.most < level.most {
		return rule
	}
	return level
}

// idling is how long a session may do nothing, 0 for ever, and what says so.
type idling struct {
	most time.Duration
	by   string
}

// sessionsOf is how many sessions a grant may have at once.
func sessionsOf(g policy.Grant) int {
	most := g.Can.ConnectionLimit()
	if g.Limits.Sessions > 0 {
		most = min(most, g.Limits.Sessions)
	}
	return most
}
