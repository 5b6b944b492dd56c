package auth

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

const (
	// logoutEvent marks a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4).
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	// logoutAge is how old a logout token may be: it is made for one delivery, at once.
	logoutAge = 2 * time.Minute
	// logoutsMost is how many sign-outs are remembered, and how many tokens that told of them.
	logoutsMost = 16384
	// logoutKept is how long a sign-out is held against tokens that are older: longer than access tokens live.
	logoutKept = 24 * time.Hour
)

// ErrReplayed: a logout token that was taken already.
var ErrReplayed = errors.New("this logout token was taken before")

// Logout is an issuer's word that somebody has signed out there: of one session, or, without Session, of
// all. One of Subject and Session is set.
type Logout struct {
	Issuer  string
	Subject string
	Session string // sid
	Issued  time.Time

	id string // jti
}

// Logout verifies a logout token in full (section 2.6). It counts as taken once SignedOut was called.
func (b *Bearer) Logout(ctx context.Context, raw string) (Logout, error) {
	if len(raw) > LongestToken {
		return Logout{}, badToken("it is longer than %d bytes", LongestToken)
	}
	// The type was made mandatory after the first providers had come.
	all, err := b.verified(ctx, raw, "logout+jwt", "jwt", "")
	if err != nil {
		return Logout{}, err
	}
	at, err := b.when(all)
	switch {
	case err != nil:
		return Logout{}, err
	case time.Since(at.iat) > logoutAge+skew:
		return Logout{}, badToken("it is older than %s%s", logoutAge, because(b.of.clock.apartBy(0)))
	case !slices.Contains(stringsOf(all["aud"]), b.cfg.ClientID):
		return Logout{}, badToken("it was made for %.100q (aud)", stringsOf(all["aud"]))
	case !tellsOfLogout(all["events"]):
		return Logout{}, badToken("it tells of no logout (events)")
	}
	// An ID token must never pass for a logout token, which has no nonce for this reason.
	if _, ok := all["nonce"]; ok {
		return Logout{}, badToken("it has a nonce, so it is an ID token")
	}
	out := Logout{Issuer: b.cfg.URL, Subject: stringOf(all["sub"]), Session: stringOf(all["sid"]), Issued: at.iat, id: stringOf(all["jti"])}
	switch {
	case out.id == "":
		return Logout{}, badToken("it has no id (jti)")
	case out.Subject == "" && out.Session == "":
		return Logout{}, badToken("it names nobody (sub, sid)")
	case max(len(out.Subject), len(out.Session), len(out.id)) > longestSubject:
		return Logout{}, badToken("its names are too long")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, taken := b.replays[out.id]; taken {
		return Logout{}, ErrReplayed
	}
	return out, nil
}

// tellsOfLogout looks for the event, whose value is an object that may be empty.
func tellsOfLogout(raw json.RawMessage) bool {
	var events map[string]json.RawMessage
	if json.Unmarshal(raw, &events) != nil {
		return false
	}
	var object map[string]json.RawMessage
	event, ok := events[logoutEvent]
	return ok && json.Unmarshal(event, &object) == nil && object != nil
}

// signOut is since when somebody's older tokens are not taken any more.
type signOut struct{ at, until time.Time }

// What of a token a sign-out is held against.
const (
	leftSession = "sid " // tokens of that session
	leftAll     = "sub " // all tokens of the person
	leftBare    = "own " // those of the person that name no session: it may have been theirs
)

// SignedOut takes a logout token: it is not taken again, and tokens that the person got before it are not
// either, wherever they are shown. Memory alone keeps that; a provider's access tokens don't live long.
func (b *Bearer) SignedOut(out Logout) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	forgetPast(b.replays, func(until time.Time) bool { return now.After(until) })
	forgetPast(b.left, func(s signOut) bool { return now.After(s.until) })
	b.replays[out.id] = now.Add(logoutAge + 2*skew)
	s := signOut{at: out.Issued, until: now.Add(logoutKept)}
	switch {
	case out.Session == "":
		b.left[leftAll+out.Subject] = s
	case out.Subject != "":
		b.left[leftBare+out.Subject] = s
		fallthrough
	default:
		b.left[leftSession+out.Session] = s
	}
	for key, k := range b.kept {
		if b.stillIn(k.token) != nil || k.token.Issued.IsZero() && k.token.Identity.Subject == out.Subject {
			delete(b.kept, key) // what does not say when it was made is asked about again
		}
	}
}

// forgetPast drops what is over; a full memory loses any.
func forgetPast[V any](m map[string]V, over func(V) bool) {
	for k, v := range m {
		if over(v) || len(m) >= logoutsMost {
			delete(m, k)
		}
	}
}

// stillIn refuses a token whose person has signed out since; mu is held.
func (b *Bearer) stillIn(t Token) error {
	if t.Issued.IsZero() {
		return nil
	}
	keys := []string{leftAll + t.Identity.Subject, leftBare + t.Identity.Subject}
	if t.session != "" {
		keys[1] = leftSession + t.session
	}
	for _, key := range keys {
		if s, ok := b.left[key]; ok && !t.Issued.After(s.at) {
			return badToken("you signed out at the identity provider after it was made")
		}
	}
	return nil
}
