package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// serve runs a session and says the one line that tells its whole story.
func (s *Server) serve(ctx context.Context, l Listener, client protocol.Client) {
	began := time.Now()
	st := &story{}
	err := s.session(ctx, l, client, st)
	client.Close(err)
	s.metrics.sessionEnded(st, err)
	log := s.cfg.Log.With("client", client.Login().Address, "user", client.Login().User,
		"session", st.header.Session, "target", st.header.Target, "identity", st.person,
		"duration", time.Since(began).Round(time.Millisecond), "end", st.end.Code,
		"in_flight", st.end.InFlight, "fate", st.end.Fate, "leaves", st.sealed.Count)
	if err != nil {
		log = log.With("error", err)
	}
	log.Info("session ended")
}

// story is what there is to tell about a session when it is over.
type story struct {
	header   recorder.Header
	person   string // whose it is, as logs may show it
	began    bool   // there was a session, with a recording
	unopened bool   // it is not known to be on the ledger
	end      recorder.End
	sealed   recorder.Sealed
}

// session is the life of a session, top to bottom. Each step's undo is deferred where the step
// succeeds; the defers are the teardown order: the client has been told (Relay) → kill the backend and
// learn the outcome → seal the recording → release the account → release the grant. The caller hangs up.
//
// Whatever ends it from outside ends one context, with the reason as its cause: held when the grant is over
// or the node stops, and own, which is derived from it, when this session alone is to end.
func (s *Server) session(ctx context.Context, l Listener, client protocol.Client, st *story) (err error) {
	login := client.Login()
	grant, err := s.cfg.Grants.Find(ctx, login.User)
	if err != nil {
		return err
	}
	if !l.serves(grant.Target, s.cfg.EngineNames[grant.Target]) {
		return &protocol.Refusal{Code: protocol.RefuseNoGrant, Public: fmt.Sprintf(
			"this grant is for the target %s, which is not served here; `curfew credentials %s` says where", grant.Target, grant.ID)}
	}

	held, release, err := s.cfg.Grants.Hold(ctx, grant.ID)
	if err != nil {
		return err
	}
	defer release()

	tenure, leave, err := s.tenures.enter(held, grant)
	if err != nil {
		return err
	}
	defer func() { leave(err == nil) }()

	st.header, st.person = s.header(grant, login, tenure.spec.Name), grant.Identity.Label()
	recording, err := s.open(ctx, st.header)
	if err != nil {
		return err
	}
	own, end := context.WithCancelCause(held)
	defer end(nil)
	life := &life{header: st.header, idle: idleOf(grant), tenure: tenure, own: own, end: end,
		meter: &meter{Recording: recording, metrics: s.metrics}}
	defer s.roll.enter(life)()
	defer tenure.admit(life)()
	st.began, st.end = true, recorder.End{Code: recorder.EndFailed, Reason: "the session did not begin"}
	defer func() { s.seal(ctx, recording, st) }()
	defer func() { st.end = closing(st.end, own, err) }()

	account, err := tenure.take(own)
	if err != nil {
		return err
	}
	link, err := client.Attach(own, account)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.kill(ctx, tenure, held, link, st)
		}
	}()
	life.joined(link)
	life.warn()
	defer life.hush()
	err = link.Relay(own, life.sink(grant.Limits))
	if err == nil {
		st.end = recorder.End{Code: recorder.EndClient, Reason: "the client closed the session", Fate: protocol.FateNone}
	}
	return err
}

// header is leaf 0: all that is known before anything exists upstream.
func (s *Server) header(grant policy.Grant, login protocol.Login, account string) recorder.Header {
	id := grant.Identity
	return recorder.Header{
		Session: policy.NewID("s", 12), Grant: grant.ID, Request: grant.Request,
		Installation: s.cfg.Installation, Node: s.cfg.Node, Began: time.Now().UTC(),
		Identity: recorder.Person{Issuer: id.Issuer, Subject: id.Subject, Email: id.Email, Name: id.Name, Groups: id.Groups, Workload: id.Workload},
		Target:   grant.Target, Level: grant.Level, Policy: grant.Policy, Engine: s.cfg.EngineNames[grant.Target], Account: account,
		Database: login.Database, Client: login.Address, Application: login.Application, TLS: login.TLS,
		Protocol: login.Protocol, Login: login.Mechanism, Parameters: grant.Record.Parameters,
		Attributes: login.Attributes,
	}
}

// open opens the recording and puts the session on the ledger: no disk, no session.
func (s *Server) open(ctx context.Context, h recorder.Header) (Recording, error) {
	recording, err := s.create(ctx, h)
	if err != nil {
		return nil, &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err,
			Public: "the session can't be recorded at the moment, so it is refused; try again later or tell your Curfew administrator"}
	}
	try, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	err = s.cfg.Step.Do("session.recording")
	if err == nil {
		err = s.cfg.Sessions.Opened(try, opened(h, recording))
	}
	if err == nil {
		err = s.cfg.Step.Do("session.opened")
	}
	if err != nil {
		s.seal(ctx, recording, &story{header: h, unopened: true,
			end: recorder.End{Code: recorder.EndFailed, Reason: "the session could not be put on the ledger"}})
		return nil, &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err,
			Public: "the session can't be put on the ledger at the moment, so it is refused; try again later or tell your Curfew administrator"}
	}
	return recording, nil
}

// create begins the recording, for which a disk that hangs does not keep the client waiting: what comes
// of it later is closed.
func (s *Server) create(ctx context.Context, h recorder.Header) (Recording, error) {
	type created struct {
		recording Recording
		err       error
	}
	done := make(chan created)
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	go func() {
		defer cancel()
		r, err := s.cfg.Recordings.Create(h)
		select {
		case done <- created{r, err}:
			return
		case <-late.Done():
		}
		if err == nil {
			s.seal(ctx, r, &story{header: h, unopened: true,
				end: recorder.End{Code: recorder.EndFailed, Reason: "the recording was not begun in time"}})
		}
	}()
	select {
	case c := <-done:
		return c.recording, c.err
	case <-late.Done():
		return nil, errors.New("the recording is not begun: the disk hangs")
	}
}

func opened(h recorder.Header, r Recording) ledger.SessionOpened {
	return ledger.SessionOpened{Session: h.Session, Grant: h.Grant, Target: h.Target,
		Account: h.Account, Node: h.Node, Client: h.Client, Login: h.Login, Header: r.HeaderHash()}
}

// kill ends the backend of a session that did not end by the client's goodbye, and learns what became
// of the statement in flight. When the grant is over its tenure cuts all backends at once: the outcome
// is that cut's, so this waits for it first.
func (s *Server) kill(ctx context.Context, t *tenure, held context.Context, link protocol.Link, st *story) {
	if held.Err() != nil || t.held.Err() != nil {
		t.awaitCut(held, endTimeout)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	outcome, err := link.Kill(ctx)
	if err != nil {
		s.cfg.Log.Error("kill backend", "session", st.header.Session, "backend", outcome.Backend, "error", err)
		outcome.Fate = protocol.FateUnknown
	}
	st.end.InFlight, st.end.TxID, st.end.Fate = outcome.InFlight, outcome.TxID, outcome.Fate
}

// closing says how a session ended, in the words that its recording keeps.
func closing(end recorder.End, own context.Context, err error) recorder.End {
	var refusal *protocol.Refusal
	var ended *protocol.EndError
	switch {
	case err == nil:
	case own.Err() != nil && errors.As(context.Cause(own), &refusal):
		end.Code, end.Reason = refusal.Code, refusal.Public
	case errors.As(err, &ended):
		end.Code, end.Reason = ended.Code, ended.Err.Error()
	case errors.As(err, &refusal):
		end.Code, end.Reason = recorder.EndFailed, refusal.Public
	default:
		end.Code, end.Reason = recorder.EndFailed, "internal error"
	}
	return end
}

// seal closes the recording and puts that on the ledger. A disk that hangs or fails does not hold up what
// comes after: the sealing goes on by itself until it is done or the node stops, and what it can't finish
// is healed at the next start.
func (s *Server) seal(ctx context.Context, recording Recording, st *story) {
	ctx = context.WithoutCancel(ctx)
	first := make(chan recorder.Sealed, 1)
	left := *st
	go func() {
		for wait := retryFirst; ; wait = min(2*wait, sealAgain) {
			sealed, err := s.trySeal(ctx, recording, left)
			select {
			case first <- sealed:
			default: // nobody waits for a later try
			}
			if err == nil {
				return
			}
			s.cfg.Log.Error("seal recording; it is tried again", "session", left.header.Session, "error", err)
			select {
			case <-time.After(wait):
			case <-s.tenures.stop:
				return
			}
		}
	}()
	select {
	case st.sealed = <-first:
	case <-time.After(endTimeout):
		s.cfg.Log.Error("sealing hangs", "session", st.header.Session)
	}
}

// trySeal does it once; each of its steps bears to be repeated. What never came to be a session has no
// recording: entered later than it began, it would look like one that was begun behind the ledger's back.
func (s *Server) trySeal(ctx context.Context, recording Recording, st story) (recorder.Sealed, error) {
	if st.unopened { // or it is there after all: its entry was reported as failed, and had been stored
		known, err := s.cfg.Sessions.OfGrant(ctx, st.header.Grant)
		if err != nil {
			return recorder.Sealed{}, err
		}
		if !slices.Contains(known, st.header.Session) {
			return recorder.Sealed{}, recording.Discard()
		}
	}
	sealed, err := recording.Seal(st.end)
	if err == nil {
		err = s.cfg.Step.Do("session.sealed")
	}
	if err != nil {
		return sealed, err
	}
	return sealed, s.cfg.Sessions.Sealed(ctx, ledger.SessionSealed{Grant: st.header.Grant, Target: st.header.Target, Sealed: sealed})
}
