package export

import (
	"maps"
	"slices"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/intended"
)

// Intended is what was executed under a grant, held against the SQL that its request said it was for.
type Intended struct {
	Grant string `json:"grant"`
	intended.Report
}

// judged begins to hold a session's statements against what was intended, if its request says what that is.
func (s *story) judged(session *sessionStory) *intended.Session {
	g := s.grants[session.Grant]
	if g == nil || s.dialects == nil {
		return nil
	}
	r := s.requests[g.Request]
	if r == nil || r.SQL == "" {
		return nil
	}
	if s.judges[session.Grant] == nil {
		s.judges[session.Grant] = intended.NewJudge(g.Request, r.SQL, s.dialects)
		s.judges[session.Grant].Lines = 20 // of each grant: a bundle can have many
	}
	return s.judges[session.Grant].Session()
}

// seer shows events to a judge, if there is one.
func seer(j *intended.Session) func(*recorder.Event) {
	if j == nil {
		return func(*recorder.Event) {}
	}
	return func(e *recorder.Event) { j.See(e) }
}

// finishIntended reports what was found of each grant of which there were recordings.
func (s *story) finishIntended() {
	for _, id := range slices.Sorted(maps.Keys(s.judges)) {
		r := s.judges[id].Report("") // each has seen a session
		s.report.Intended = append(s.report.Intended, Intended{id, r})
		if r.Outside > 0 {
			s.report.note("grant "+id, "%d of %d executed statements were outside the intended SQL of request %s", r.Outside, r.Executed, r.Request)
		}
	}
}

// judged is the same for a session of which JSONL shows the events.
func (c *catalog) judged(dialects map[string]recorder.Dialect, session *sessionInfo) *intended.Session {
	g := c.grants[session.Grant]
	if g == nil || dialects == nil {
		return nil
	}
	r := c.requests[g.Request]
	if r == nil || r.SQL == "" {
		return nil
	}
	return intended.NewJudge(g.Request, r.SQL, dialects).Session()
}

// verdict gives what JSONL writes of an event: the last line of a text that is executed says whether it is inside.
func verdict(j *intended.Session, e *recorder.Event) string {
	if j == nil {
		return ""
	}
	if v, complete := j.See(e); complete {
		return `","intended":"` + string(v)
	}
	return ""
}
