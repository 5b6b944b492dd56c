package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/internal/provider"
)

// devFlags are what curfew dev is told. Addresses left out stay as they were the last time.
type devFlags struct {
	dir, api, issuer, ops string
	webhook               string
	listen, targets       []string
	yes                   bool
}

func newDev(a *app) *cobra.Command {
	var f devFlags
	c := &cobra.Command{
		Use:   "dev",
		Short: "Try Curfew on this machine, with an identity provider of its own",
		Long: `Runs everything on this machine: the server, and an identity provider with four demo identities,
alice and dana (developers), bob (lead) and sam (security). It never listens beyond loopback.

--target names a database of your own. With an administrator's URL, curfew dev shows the SQL that
makes a broker login and two group roles there, and runs it after your yes; with any other login,
that login is the broker. What it makes is kept in --dir: the next start needs no flags.`,
		Example: `  curfew dev ` + targetExamples() + `
  curfew login --as alice      # in another terminal
  curfew connect orders --level writer --for 10m --reason "try it"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dev(cmd.Context(), f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.dir, "dir", "", "where everything is kept (default: CURFEW_DEV, or ~/.curfew-dev)")
	flags.StringVar(&f.api, "api", "", "loopback address of the API (default 127.0.0.1:7433)")
	flags.StringArrayVar(&f.listen, "listen", nil, "loopback address that clients connect to; TARGET=ADDRESS for a target with a listener of its own (default "+listenDefaults()+")")
	flags.StringVar(&f.issuer, "issuer", "", "loopback address of the identity provider (default: a free port)")
	flags.StringVar(&f.ops, "ops", "", "loopback address for /healthz, /readyz and /metrics (default: none)")
	flags.StringVar(&f.webhook, "notify-webhook", "", "loopback address that is told what happens, signed with the text of webhook.secret (default: none)")
	flags.StringArrayVar(&f.targets, "target", nil, "NAME=URL of a database to guard; may be repeated")
	flags.BoolVar(&f.yes, "yes", false, "run the setup SQL without asking")
	return c
}

// dev prepares the directory and runs the server and the provider in it.
func (a *app) dev(ctx context.Context, f devFlags) error {
	if isTerminal(a.stdin) { // a terminal that is closed ends it; without one SIGHUP reloads, as with serve
		var release context.CancelFunc
		ctx, release = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer release()
	}
	d, err := a.prepareDev(ctx, f)
	if err != nil {
		return err
	}
	key, err := provider.OpenKey(d.path("identities.key"))
	if err != nil {
		return err
	}
	logFile, err := os.OpenFile(d.path("curfew.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	log := slog.New(slog.NewMultiHandler(slog.NewTextHandler(logFile, nil),
		slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))

	defer a.hurry(ctx, log)()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	issuer, err := provider.New(provider.Options{Issuer: "http://" + d.Issuer, Key: key, Log: log})
	if err != nil {
		return err
	}
	ln, err := provider.Listen(ctx, d.Issuer)
	if err != nil {
		return err
	}
	identities := make(chan error, 1)
	go func() {
		err := issuer.Serve(ctx, ln)
		stop(err)
		identities <- err
	}()
	err = a.serve(ctx, d.path("curfew.yaml"), serveOptions{log: log, step: crashStep(a.env), seams: crashSeams(a.env), began: d.began(a, f)})
	stop(nil)
	return errors.Join(err, <-identities)
}

// devHome is the directory of a curfew dev, and what it remembers from one start to the next.
type devHome struct {
	dir       string
	API       string            `json:"api"`
	Issuer    string            `json:"issuer"`
	Ops       string            `json:"ops,omitempty"`
	Webhook   string            `json:"webhook,omitempty"`
	Targets   map[string]string `json:"targets"`   // name → the broker's URL; the password lies beside it
	Listeners map[string]string `json:"listeners"` // place → host:port; see place
}

func (d *devHome) path(name string) string { return filepath.Join(d.dir, name) }

// prepareDev makes or completes the directory: certificate, broker passwords, configuration, policy.
func (a *app) prepareDev(ctx context.Context, f devFlags) (*devHome, error) {
	d := &devHome{dir: f.dir, Targets: map[string]string{}, Listeners: map[string]string{}}
	var err error
	if d.dir == "" {
		if d.dir, err = a.devDir(); err != nil {
			return nil, err
		}
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	if err := d.load(); err != nil {
		return nil, err
	}
	asked, err := parseTargets(f.targets)
	if err != nil {
		return nil, err
	}
	if len(asked)+len(d.Targets) == 0 {
		return nil, problem(exitUsage, "usage", "curfew dev guards no database yet", "name one: curfew dev "+firstExample())
	}
	if err := d.addresses(f, asked); err != nil {
		return nil, err
	}
	if err := d.certificate(); err != nil {
		return nil, err
	}
	if err := d.webhook(f); err != nil {
		return nil, err
	}
	if err := d.free(); err != nil {
		return nil, err
	}
	for _, t := range asked {
		if err := a.guardOwn(ctx, d, t, f.yes); err != nil {
			return nil, err
		}
	}
	return d, d.write()
}

func (d *devHome) load() error {
	b, err := os.ReadFile(d.path("home.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, d)
	}
	if err != nil {
		return fmt.Errorf("read what curfew dev remembers: %w", err)
	}
	return nil
}

// began writes dev.json for the command line, and says what one can do now.
func (d *devHome) began(a *app, f devFlags) func(*house) {
	return func(h *house) {
		b, _ := json.MarshalIndent(devFile{API: "http://" + d.API, Issuer: "http://" + d.Issuer, Key: d.path("identities.key"),
			CA: d.path("tls.crt"), Listeners: d.served()}, "", "  ") // plain values: can't fail
		if err := writePrivate(d.path(devFileName), append(b, '\n')); err != nil {
			h.log.Error("write dev.json", "error", err)
		}
		if err := writePrivate(d.path("ledger.pub"), []byte(h.store.VerifierKey()+"\n")); err != nil {
			h.log.Error("write ledger.pub", "error", err)
		}
		env := ""
		if f.dir != "" {
			env = "  export CURFEW_DEV=" + d.dir + "\n"
		}
		fmt.Fprintf(a.stderr, `Curfew is running on this machine. In another terminal:
%s  curfew login --as alice                          # dana, bob (lead) and sam (security) are there too
  curfew connect %s --level writer --for 10m --reason "try it"
and to approve, as somebody else, in a third:
  CURFEW_HOME=~/.curfew-bob curfew login --as bob
  CURFEW_HOME=~/.curfew-bob curfew requests && CURFEW_HOME=~/.curfew-bob curfew approve REQUEST
In a browser one logs in as anybody with the passcode in %s. Log: %s
`, env, firstKey(d.Targets), d.path("identities.key"), d.path("curfew.log"))
	}
}
