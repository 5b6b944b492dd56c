package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/curfewdb/curfew/control/api"
)

// session is what the command line remembers between runs, in a file that only its owner can read.
type session struct {
	Server  string    `json:"server"`
	Token   string    `json:"token,omitempty"`
	CA      string    `json:"ca,omitempty"` // path of a PEM file
	Email   string    `json:"email,omitempty"`
	Flow    string    `json:"flow,omitempty"` // "device": how to log in again
	As      string    `json:"as,omitempty"`   // the demo identity that it is
	Expires time.Time `json:"expires,omitzero"`
}

// home is where the command line keeps its files.
func (a *app) home() (string, error) {
	if h := a.env("CURFEW_HOME"); h != "" {
		return h, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", problem(exitFailed, "failed", "no place for Curfew's files: "+err.Error(), "set CURFEW_HOME to a directory of your own")
	}
	return filepath.Join(dir, "curfew"), nil
}

func (a *app) sessionPath() (string, error) {
	home, err := a.home()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, "session.json"), nil
}

// loadSession gives an empty session when there is none.
func (a *app) loadSession() (session, error) {
	var s session
	path, err := a.sessionPath()
	if err != nil {
		return s, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := checkPrivate(path); err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, problem(exitFailed, "failed", path+" can't be read: "+err.Error(), "remove it and log in again: curfew login")
	}
	return s, nil
}

// checkPrivate refuses a file with secrets that others can read, as ssh does with keys.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return problem(exitFailed, "failed", fmt.Sprintf("%s can be read by others (mode %#o)", path, info.Mode().Perm()),
			"chmod 600 "+path+", and log in again if somebody may have read it: curfew login")
	}
	return nil
}

func (a *app) saveSession(s session) error {
	path, err := a.sessionPath()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(path, append(b, '\n'))
}

func (a *app) dropSession(s session) error {
	s.Token, s.Email, s.Flow, s.As, s.Expires = "", "", "", "", time.Time{}
	return a.saveSession(s)
}

// writePrivate puts a file in place whole or not at all, readable by its owner only.
func writePrivate(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// writeTemporary makes a file that its owner alone can read; the caller removes it.
func writeTemporary(dir, text string) (path string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, "client-*") // 0600
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name()) // the write's error is the one to tell
		return "", err
	}
	return f.Name(), nil
}

// resolve joins the flags, the environment and what was remembered: the first that says something wins.
func (a *app) resolve() (session, error) {
	s, err := a.loadSession()
	if err != nil {
		return s, err
	}
	server := first(a.server, a.env("CURFEW_SERVER"), s.Server)
	if server != s.Server {
		// A token is for the server that gave it, and is shown to no other.
		s = session{Server: server}
	}
	s.CA = first(a.ca, a.env("CURFEW_CA"), s.CA)
	token, err := a.givenToken()
	if err != nil {
		return s, err
	}
	if token != "" {
		s.Token = token
	}
	if s.Server == "" {
		return s, problem(exitLogin, api.CodeUnauthenticated, "no Curfew server is known yet", "log in: curfew login --server https://…")
	}
	return s, nil
}

// longestToken is as much as a token file may hold.
const longestToken = 32 << 10

// givenToken is a token that somebody else has put there: a session token, or a workload's own, which its CI
// system may write anew at any time.
func (a *app) givenToken() (string, error) {
	path := a.tokenFile
	if path == "" {
		return a.env("CURFEW_TOKEN"), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", problem(exitUsage, "usage", "the token file can't be read: "+err.Error(), "name another: --token-file FILE")
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, longestToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(text) > longestToken || strings.ContainsAny(token, " \n\r\t") {
		return "", problem(exitUsage, "usage", "there is no token in "+path, "it holds one token and nothing else")
	}
	return token, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// client is for every command that needs a login.
func (a *app) client() (*api.Client, error) {
	s, err := a.resolve()
	if err != nil {
		return nil, err
	}
	if s.Token == "" {
		return nil, problem(exitLogin, api.CodeUnauthenticated, "you are not logged in at "+s.Server, "log in: curfew login --server "+s.Server)
	}
	c, err := a.clientFor(s)
	if err == nil && a.env("CURFEW_TOKEN") == "" && a.tokenFile == "" { // that one is somebody else's to replace
		c.StepUp = func(ctx context.Context, p *api.Problem) (string, error) { return a.stepUp(ctx, s, p) }
	}
	return c, err
}

func (a *app) clientFor(s session) (*api.Client, error) {
	if err := checkServer(s.Server); err != nil {
		return nil, err
	}
	h, err := httpClient(s.CA)
	if err != nil {
		return nil, err
	}
	return &api.Client{Server: s.Server, Token: s.Token, Agent: "curfew/" + version, HTTP: h}, nil
}

// checkServer refuses to send a token in the clear over a network.
func checkServer(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return problem(exitUsage, "usage", fmt.Sprintf("%q is not a server's address", server), "give one like https://curfew.example.com")
	}
	if u.Scheme == "https" {
		return nil
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return problem(exitUsage, "usage", "http:// is for this machine only, a session token would cross the network in the clear", "use https://"+u.Host)
}

func httpClient(ca string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 90 * time.Second // longer than any long poll
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, problem(exitUsage, "usage", "the CA can't be read: "+err.Error(), "correct --ca or CURFEW_CA")
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, problem(exitUsage, "usage", ca+" holds no PEM certificate", "correct --ca or CURFEW_CA")
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport: transport,
		// The API never redirects; following one would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
