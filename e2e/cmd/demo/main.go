// Command demo plays Curfew's whole line for real, with a narrator: a PostgreSQL and a MariaDB in temporary
// directories, the curfew binary with its embedded identity provider, people at their terminals, Debian's
// psql and mariadb. It checks what it tells, and ends with status 1 when something is not as it says.
//
// make demo installs what it needs, builds the binary and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

func main() {
	bin := flag.String("curfew", "", "the binary (default: build one)")
	keep := flag.Bool("keep", false, "keep the directory with recordings, ledger and logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *bin, *keep)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe story broke off: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, keep bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "curfew-demo-")
	if err != nil {
		return err
	}
	if keep {
		fmt.Println("Everything is kept in", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	n := newNarrator(os.Stdout)
	n.say("Curfew: psql and mariadb, end to end, for real.")
	if bin == "" {
		bin = filepath.Join(dir, "curfew")
		n.step("Building the binary.")
		if err := harness.Build(ctx, bin, ""); err != nil {
			return err
		}
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	n.step("Starting a PostgreSQL of its own, with a database \"orders\" that nobody but its DBA can log in to.")
	pg, err := harness.StartPostgres(ctx, filepath.Join(dir, "db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close()) }()
	n.step("Starting a MariaDB, with a database \"shop\".")
	my, err := harness.StartMariaDB(ctx, filepath.Join(dir, "mariadb"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, my.Close()) }()
	curfew, err := harness.NewCurfew(bin, filepath.Join(dir, "curfew-data"), pg.Target(), my.Target())
	if err != nil {
		return err
	}
	notices := curfew.Listening()
	defer func() { err = errors.Join(err, notices.Close()) }()
	n.step("Starting Curfew in front of both: curfew dev --target orders=postgres://curfew_broker@…/orders --target shop=mysql://curfew_broker@…/shop")
	if err := curfew.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, curfew.Stop()) }()
	s := &story{narrator: n, dir: dir, curfew: curfew, notices: notices, database: orders(pg)}
	err = s.play(ctx)
	if err == nil {
		n.say("The same with the MariaDB.")
		err = s.again(ctx, shop(my))
	}
	if err != nil {
		return fmt.Errorf("%w\n\ncurfew's log:\n%s", err, curfew.Log())
	}
	n.say("Everything that was told here was checked. Total: %.1f s.", time.Since(n.began).Seconds())
	return nil
}
