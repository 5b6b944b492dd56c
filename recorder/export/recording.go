package export

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

// sealedRecording holds a sealed file against what the ledger says of it.
func (s *story) sealedRecording(name, id string, r io.Reader) {
	session := s.recorded(name, id)
	if session == nil {
		return
	}
	if session.sealed == nil {
		s.report.bad(name, "the ledger does not say that session %s is sealed", id)
		return
	}
	judge := s.judged(session)
	rep, err := recorder.VerifyEvents(r, *session.sealed, seer(judge), session.moved...)
	if judge != nil {
		judge.Close()
	}
	for _, e := range flatten(err) {
		s.report.bad(name, "%v", e)
	}
	if rep.Erased > 0 {
		s.report.note(name, "%d events were erased; their hashes are still there", rep.Erased)
	}
	s.report.Events += rep.Count
	s.report.Statements += rep.Statements
	s.told(name, session, rep.Header, rep.HeaderHash, rep.Latest)
}

// openRecording holds what an open session had recorded against the states that the ledger has of it.
func (s *story) openRecording(name, id string, r io.Reader) {
	session := s.recorded(name, id)
	if session == nil {
		return
	}
	if session.sealed != nil {
		s.report.bad(name, "session %s is sealed, this is not its sealed recording", id)
		return
	}
	roots := map[uint64]string{}
	for _, m := range session.moved {
		roots[m.Count] = m.Root
	}
	var (
		tree     recorder.Tree
		header   *recorder.Header
		first    string
		latest   int64
		micros   int64
		lines    = recorder.NewReader(r)
		expected = len(roots)
		judge    = s.judged(session)
	)
	for {
		line, e, err := lines.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.report.bad(name, "%v", err)
			break
		}
		leaf := recorder.Leaf(line, e)
		tree.Append(leaf)
		seer(judge)(&e)
		if e.Erased != "" {
			s.report.bad(name, "event %d is erased: nothing is erased before its recording is sealed", e.Seq)
		}
		if e.Micros < micros && e.Erased == "" {
			s.report.bad(name, "event %d is earlier than the one before it", e.Seq)
		}
		micros = max(micros, e.Micros)
		switch e.Type {
		case recorder.TypeHeader:
			header, first = e.Header, hex.EncodeToString(leaf[:])
		case recorder.TypeStatement:
			latest = max(latest, e.Micros)
			s.report.Statements++
		}
		if want, ok := roots[tree.Count()]; ok {
			expected--
			if root := tree.Root(); want != hex.EncodeToString(root[:]) {
				s.report.bad(name, "its first %d events are not those that the ledger has", tree.Count())
			}
		}
	}
	if judge != nil {
		judge.Close()
	}
	if expected > 0 {
		s.report.bad(name, "it is cut off: it holds %d events, the ledger has seen %d", tree.Count(),
			session.moved[len(session.moved)-1].Count)
	}
	s.report.Events += tree.Count()
	s.told(name, session, header, first, latest)
}

// recorded finds the session that a file is the recording of.
func (s *story) recorded(name, id string) *sessionStory {
	session := s.sessions[id]
	switch {
	case session == nil:
		s.report.bad(name, "it is of a session that is not on the ledger")
		return nil
	case session.file:
		s.report.bad(name, "session %s has two recordings", id)
		return nil
	}
	session.file = true
	s.report.Recordings++
	return session
}

// told holds what a recording tells of itself against the ledger, and its times against the grant's.
func (s *story) told(name string, session *sessionStory, h *recorder.Header, hash string, latest int64) {
	if hash != session.Header {
		s.report.bad(name, "its header is not the one that the session was opened with")
	}
	if h == nil {
		return
	}
	session.began = h.Began
	g := s.grants[session.Grant]
	if g == nil {
		return // said where the session was opened
	}
	for _, f := range []struct{ what, got, want string }{
		{"session", h.Session, session.Session},
		{"grant", h.Grant, session.Grant},
		{"request", h.Request, g.Request},
		{"installation", h.Installation, s.installation},
		{"target", h.Target, session.Target},
		{"access level", h.Level, g.Level},
		{"account", h.Account, session.Account},
		{"person", h.Identity.Issuer + "#" + h.Identity.Subject, key(g.Person)},
		{"node", h.Node, session.Node},
		{"client", h.Client, session.Client},
		{"login", h.Login, cmp.Or(session.Login, h.Login)}, // older ledgers don't say
		{"policy", h.Policy, s.policyOf(g)},
		{"parameters", h.Parameters, g.Parameters},
	} {
		if f.got != f.want {
			s.report.bad(name, "its header names the %s %s, the ledger %s", f.what, f.got, f.want)
		}
	}
	if last := h.Began.Add(time.Duration(latest) * time.Microsecond); latest > 0 && last.After(g.end.Add(slack)) {
		s.report.bad(name, "a statement was run at %s, after the grant's end at %s", stamp(last), stamp(g.end))
	}
	late := session.at.Sub(h.Began)
	interrupted := session.sealed != nil && session.sealed.Interrupted
	if !interrupted && (late > opening+s.skew || late < -slack) {
		s.report.bad(name, "it began at %s, the ledger says %s", stamp(h.Began), stamp(session.at))
	}
}

// policyOf is the hash of the policy that a grant's request was judged by.
func (s *story) policyOf(g *grantStory) string {
	if r := s.requests[g.Request]; r != nil {
		return r.Policy
	}
	return ""
}

// flatten takes joined errors apart, so that each is a finding of its own.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
