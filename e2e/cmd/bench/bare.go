package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/postgres"
	"github.com/curfewdb/curfew/recorder"
)

// A bare relay is Curfew's engine, relay and recorder for one account, without a desk, a ledger or an API.
// The product has no switch that turns recording off, so what recording costs is measured here: twice the
// same program, whose sessions go to a recorder or nowhere.
const (
	bareName     = "bare-relay"
	barePassword = "bare"
	bareInstall  = "bench1"
)

type bare struct {
	url, password, role string
	dir                 string // of recordings; empty: events are made and thrown away
	durability          string
	profile             string

	account  protocol.Account
	verifier []byte
	grant    string
	library  *recorder.Library
	sessions sync.WaitGroup
}

// bareMain runs until SIGTERM. It says where it listens and as whom one logs in, in one line.
func bareMain(args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := runBare(ctx, args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func runBare(ctx context.Context, args []string) (err error) {
	b := &bare{grant: policy.NewID("g", 11)}
	f := flag.NewFlagSet(bareName, flag.ContinueOnError)
	f.StringVar(&b.url, "url", "", "of the target, with the broker's name")
	f.StringVar(&b.password, "password", "", "the broker's")
	f.StringVar(&b.role, "role", "", "that the account has")
	f.StringVar(&b.dir, "dir", "", "of recordings; empty: nothing is kept")
	f.StringVar(&b.durability, "durability", "process", "process or disk")
	f.StringVar(&b.profile, "profile", "", "file for a CPU profile")
	if err := f.Parse(args); err != nil {
		return err
	}
	if b.profile != "" {
		out, err := os.Create(b.profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if n := runtime.GOMAXPROCS(0); recorder.Durability(b.durability).Processors(n) != n { // else it stays Go's own affair, as in curfew
		runtime.GOMAXPROCS(recorder.Durability(b.durability).Processors(n))
	}
	if b.dir != "" {
		if b.library, err = recorder.Open(b.dir, recorder.Options{Durability: recorder.Durability(b.durability), Node: "bench"}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.library.Close()) }()
	}
	return b.guard(ctx)
}

// guard makes the account, serves it, and drops it.
func (b *bare) guard(ctx context.Context) (err error) {
	lasting := context.WithoutCancel(ctx)
	kind, log := postgres.Kind(), slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	engine, err := kind.New(lasting, protocol.TargetConfig{Name: "orders", URL: b.url, Password: b.password, Installation: bareInstall, Log: log})
	if err != nil {
		return err
	}
	defer engine.Close()
	if b.verifier, err = engine.Enrol(barePassword); err != nil {
		return err
	}
	b.account, err = engine.Provision(ctx, protocol.AccountSpec{Installation: bareInstall, Grant: b.grant,
		Name: "curfew_" + bareInstall + "_" + b.grant, Requester: "bench", End: time.Now().Add(24 * time.Hour),
		Level: protocol.Level{Name: "worker", Roles: []string{b.role}, Sessions: 1200}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(lasting)) }()
	front, err := kind.NewFront(protocol.ListenerConfig{DecoyKey: []byte(bareInstall), Log: log})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr(), b.grant)
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			break // closed
		}
		b.sessions.Go(func() { b.session(ctx, front, conn) })
	}
	b.sessions.Wait()
	return nil
}

func (b *bare) drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := b.account.Cut(ctx); err != nil {
		return err
	}
	_, err := b.account.Clean(ctx)
	return err
}

func (b *bare) session(ctx context.Context, front protocol.Front, conn net.Conn) {
	client, err := front.Accept(ctx, conn, b)
	if err != nil {
		if !errors.Is(err, protocol.ErrHandled) && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, "bench: accept:", err)
		}
		conn.Close()
		return
	}
	err = b.relay(ctx, client)
	client.Close(err)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench: session:", err)
	}
}

func (b *bare) relay(ctx context.Context, client protocol.Client) error {
	sink, closing, err := b.sink(client.Login())
	if err != nil {
		return err
	}
	defer closing()
	link, err := client.Attach(ctx, b.account)
	if err != nil {
		return err
	}
	if err := link.Relay(ctx, sink); err != nil {
		_, kerr := link.Kill(context.WithoutCancel(ctx))
		return errors.Join(err, kerr)
	}
	return nil
}

// nowhere is a sink that keeps nothing.
type nowhere struct{}

func (nowhere) Record(...recorder.Event) error { return nil }

func (b *bare) sink(login protocol.Login) (protocol.Sink, func(), error) {
	if b.library == nil {
		return nowhere{}, func() {}, nil
	}
	w, err := b.library.Create(recorder.Header{Session: policy.NewID("s", 12), Grant: b.grant, Target: "orders", Level: "worker",
		Engine: "postgres", Account: b.account.Name(), Database: login.Database, Client: login.Address})
	if err != nil {
		return nil, nil, err
	}
	return w, func() {
		if _, err := w.Seal(recorder.End{Code: recorder.EndClient}); err != nil {
			fmt.Fprintln(os.Stderr, "bench: seal:", err)
		}
	}, nil
}

// Offer and Token: no tokens are taken.
func (b *bare) Offer() (protocol.Offer, bool) { return protocol.Offer{}, false }

func (b *bare) Token(context.Context, protocol.TokenLogin) (string, error) {
	return "", &protocol.Refusal{Code: protocol.RefuseToken}
}

// Verifier knows one user.
func (b *bare) Verifier(_ context.Context, user string) ([]byte, error) {
	if user != b.grant {
		return nil, nil
	}
	return b.verifier, nil
}

// recordings is where a bare relay keeps them.
func (st *stage) recordings(name string) (string, error) {
	dir, err := os.MkdirTemp(st.set.disk, "curfew-bench-")
	if err != nil {
		return "", err
	}
	st.closers = append(st.closers, func() error { return os.RemoveAll(dir) })
	return filepath.Join(dir, name), nil
}
