package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
)

// FuzzAPI: whatever is asked over HTTP, the answer is one of those that there are, never an internal error; without
// a session token nothing below is reached but a login's two steps; and no answer but a download is long.
func FuzzAPI(f *testing.F) {
	ask := func(method, path, token, body string) {
		r := method + " " + path + " HTTP/1.1\r\nHost: curfew\r\nContent-Type: application/json\r\n"
		if token != "" {
			r += "Authorization: Bearer " + token + "\r\n"
		}
		f.Add(fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n", r, len(body)), []byte(body))
	}
	for _, token := range []string{"alice", "mallory", ""} {
		ask("POST", "/v1/login/start", token, `{"flow":"code","redirect_uri":"http://127.0.0.1:1/cb"}`)
		ask("POST", "/v1/login/finish", token, `{"login":"l1","code":"c","state":"st"}`)
		ask("GET", "/v1/whoami", token, "")
		ask("POST", "/v1/requests", token, `{"target":"orders","level":"writer","duration":"1h30m","reason":"x","start":"2026-08-11T09:30:00Z"}`)
		ask("GET", "/v1/requests?status=open&mine=true&limit=1000", token, "")
		ask("POST", "/v1/requests/r1/approve", token, `{"comment":"fine"}`)
		ask("GET", "/v1/grants/g1", token, "")
		ask("POST", "/v1/grants/g1/revoke", token, `{"comment":"`+strings.Repeat("x", 2000)+`"}`)
		ask("POST", "/v1/grants/g1/password", token, "")
		ask("POST", "/v1/sessions/s1/kill", token, `{"reason":"locks","revoke":true}`)
		ask("GET", "/v1/sessions/s1/recording", token, "")
		ask("GET", "/v1/export?format=jsonl&from=2026-08-11T09:30:00Z&grant=g1", token, "")
		ask("GET", "/v1/checkpoint", token, "")
		ask("GET", "/openapi.json", token, "")
		ask("GET", "/readyz", token, "")
		ask("DELETE", "/v1/%2e%2e/x", token, "[[[[")
	}
	fk := newFake()
	h := api.New(api.Config{
		Version: "test", Logins: fk, Requests: fk, Grants: fk, Sessions: fk, Evidence: fk, Foresight: fk,
		Now: func() time.Time { return time.Unix(1500, 0) }, Log: slog.New(slog.DiscardHandler),
	})
	f.Fuzz(func(t *testing.T, head, body []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(bytes.Clone(head), body...))))
		if err != nil || r.URL.Query().Has("wait") {
			return // what net/http refuses, or what waits by design
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r = r.WithContext(ctx)
		r.RemoteAddr = "192.0.2.1:5000"
		fresh := newFake()
		fk.request, fk.decided, fk.calls = fresh.request, fresh.decided, nil
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code < 200 {
			t.Fatalf("%s %s: %d %s", r.Method, r.URL, w.Code, w.Body)
		}
		known := strings.EqualFold(strings.TrimSpace(r.Header.Get("Authorization")), "bearer alice") || strings.HasSuffix(r.Header.Get("Authorization"), " alice")
		for _, call := range fk.calls {
			if word, _, _ := strings.Cut(call, " "); !known && word != "start" && word != "finish" {
				t.Fatalf("%q reached %s", head, call)
			}
		}
		if kind := w.Header().Get("Content-Type"); strings.Contains(kind, "json") && !strings.Contains(kind, "jsonl") && w.Body.Len() > 0 && r.Method != http.MethodHead && w.Body.Len() < 1<<18 && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %s: %s %q", r.Method, r.URL, kind, w.Body)
		}
	})
}
