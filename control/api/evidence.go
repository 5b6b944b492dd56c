package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

func (s *server) sessionRoutes() {
	tags := []string{"sessions"}
	register(s, huma.Operation{
		OperationID: "sessions", Method: http.MethodGet, Path: "/v1/sessions",
		Summary: "One's own sessions, and those one may read", Tags: tags,
	}, func(ctx context.Context, c *call, in *struct {
		Grant  string `query:"grant" maxLength:"64"`
		Target string `query:"target" maxLength:"128"`
		Open   bool   `query:"open" doc:"Only those that go on now"`
		Mine   bool   `query:"mine"`
		Page
	}) (*listing[Session], error) {
		ss, err := s.Sessions.Sessions(ctx, c.who, SessionFilter{
			Grant: in.Grant, Target: in.Target, Open: in.Open, Mine: in.Mine, After: in.After, Limit: in.Limit,
		})
		return list(c, in.Page, ss, func(s Session) Session { return s }, func(s Session) string { return s.ID }, err)
	})
	register(s, huma.Operation{
		OperationID: "session", Method: http.MethodGet, Path: "/v1/sessions/{id}",
		Summary: "One session", Tags: tags,
	}, func(ctx context.Context, c *call, in *byID) (*body[Session], error) {
		return reply(s.Sessions.Session(ctx, c.who, in.ID))
	})
	register(s, huma.Operation{
		OperationID: "kill", Method: http.MethodPost, Path: "/v1/sessions/{id}/kill",
		Summary:     "End a session now; its grant goes on, unless it is to be revoked",
		Description: "For whoever may revoke the grant. The answer is the grant.", Tags: tags,
	}, func(ctx context.Context, c *call, in *byIDWith[Kill]) (*body[Grant], error) {
		g, err := s.Sessions.Kill(ctx, c.who, in.ID, in.Body)
		if err != nil {
			return nil, err
		}
		return reply(s.showGrant(g), nil)
	})
	register(s, huma.Operation{
		OperationID: "recording", Method: http.MethodGet, Path: "/v1/sessions/{id}/recording",
		Summary:     "A session's recording, one JSON event a line (docs/FORMAT.md)",
		Description: "That it was read, by whom and from where, is on the ledger before the first byte.", Tags: tags,
		Responses: download("application/x-ndjson"),
	}, func(ctx context.Context, c *call, in *byID) (*huma.StreamResponse, error) {
		r, err := s.Sessions.Recording(ctx, c.who, in.ID, c.from)
		if err != nil {
			return nil, err
		}
		return s.stream(c, "application/x-ndjson", "", func(_ context.Context, w io.Writer) error {
			defer r.Close()
			_, err := io.Copy(w, r)
			return err
		}), nil
	})
}

func (s *server) evidenceRoutes() {
	tags := []string{"evidence"}
	register(s, huma.Operation{
		OperationID: "export", Method: http.MethodGet, Path: "/v1/export",
		Summary: "Export recordings and the ledger", Tags: tags,
		Description: "bundle: a .tar.zst that curfew verify checks offline. jsonl: one JSON object a line, each with its session, grant and person.",
		Responses:   download("application/zstd", "application/x-ndjson"),
	}, func(ctx context.Context, c *call, in *struct {
		Format  string    `query:"format" enum:"bundle,jsonl" default:"bundle"`
		Session string    `query:"session" maxLength:"64"`
		Grant   string    `query:"grant" maxLength:"64"`
		Target  string    `query:"target" maxLength:"128"`
		From    time.Time `query:"from" doc:"What ended before is left out"`
		To      time.Time `query:"to" doc:"What began at this time or later is left out"`
	}) (*huma.StreamResponse, error) {
		scope := Scope{Session: in.Session, Grant: in.Grant, Target: in.Target, From: in.From, To: in.To}
		write, err := s.Evidence.Export(ctx, c.who, scope, in.Format, c.from)
		if err != nil {
			return nil, err
		}
		if in.Format == FormatJSONL {
			return s.stream(c, "application/x-ndjson", "curfew.jsonl", write), nil
		}
		return s.stream(c, "application/zstd", "curfew.tar.zst", write), nil
	})
	type note struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	register(s, huma.Operation{
		OperationID: "checkpoint", Method: http.MethodGet, Path: "/v1/checkpoint",
		Summary: "The ledger's latest signed checkpoint, to be kept by somebody else", Tags: tags,
		Responses: download("text/plain"),
	}, func(ctx context.Context, _ *call, _ *none) (*note, error) {
		b, err := s.Evidence.Checkpoint(ctx)
		return &note{ContentType: "text/plain; charset=utf-8", Body: b}, err
	})
	register(s, huma.Operation{
		OperationID: "key", Method: http.MethodGet, Path: "/v1/key",
		Summary: "The verifier key of the checkpoints", Tags: tags,
		Description: "Compare it with one that came another way before trusting it.",
		Responses:   download("text/plain"),
	}, func(context.Context, *call, *none) (*note, error) {
		return &note{ContentType: "text/plain; charset=utf-8", Body: []byte(s.Evidence.VerifierKey() + "\n")}, nil
	})
}

// download documents an answer that is not JSON.
func download(types ...string) map[string]*huma.Response {
	content := map[string]*huma.MediaType{}
	for _, t := range types {
		content[t] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
	}
	return map[string]*huma.Response{"200": {Description: "OK", Content: content}}
}

// stream answers with what write writes. When that fails half way, the connection is cut, so that the
// client can't take the part for the whole; a client that stops taking bytes is cut too.
func (s *server) stream(c *call, contentType, file string, write func(context.Context, io.Writer) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", contentType)
		if file != "" {
			ctx.SetHeader("Content-Disposition", fmt.Sprintf("attachment; filename=%q", file))
		}
		w := &patientWriter{w: ctx.BodyWriter(), control: c.control}
		err := write(ctx.Context(), w)
		if err == nil {
			return
		}
		if !w.begun {
			s.refuse(ctx, s.explain(ctx.Context(), err))
			return
		}
		s.Log.Warn("download cut", "path", ctx.Operation().Path, "error", err)
		panic(http.ErrAbortHandler)
	}}
}

// patientWriter gives the client time for each piece, not for the whole.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
	begun   bool
}

func (p *patientWriter) Write(b []byte) (int, error) {
	p.begun = true
	_ = p.control.SetWriteDeadline(time.Now().Add(slowClient)) // unsupported by a test's recorder
	return p.w.Write(b)
}
