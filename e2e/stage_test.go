package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// stage is a target and its database: where a story plays, in that database's words.
type stage struct {
	kind   string // "postgres", "mysql"
	target string // a target, and the database that one lands in
	url    string // TARGET=URL for Curfew
	server server
	login  func(context.Context, harness.Credentials) (conn, error)
	// direct logs in past Curfew.
	direct func(ctx context.Context, user, password string) (conn, error)
	// lastWords is the sentence in the error that the database's own protocol ends a session with.
	lastWords func(error) (string, bool)

	account  string                                          // asks which account a session runs under
	slowly   func(word string) string                        // inserts a row every tenth of a second for 4 s, and writes early on
	commits  func(word string) string                        // asks how many orders carry the word
	running  func(word string) string                        // asks for connections of accounts that run a statement with the word
	open     func(grant string) string                       // asks for the connections of a grant's account
	prepared func(context.Context) ([]string, error)         // the ids of transactions that are prepared, as text
	password func(account, password string) string           // changes one's own password
	share    func(ctx context.Context, account string) error // has somebody else's login share the account
	denied   string                                          // what a login with a wrong password is told

	deeds map[string]deed
	steps []string // at which kill -9 strikes, beside everybody's
	never []string // of everybody's, those that it has not
	// crash is what a person does before kill -9 strikes: in a session that they leave, and in one that stays.
	crash func(word, grant string) (left, stays []string)

	pg *harness.Postgres // nil elsewhere
	my *harness.MariaDB  // nil elsewhere
}

// server is a database as its DBA sees it.
type server interface {
	Exec(ctx context.Context, database, sql string) error
	Ask(ctx context.Context, database, sql string, args ...any) ([]string, error)
	Leftovers(ctx context.Context, account string) ([]string, error)
}

// conn is one client connection.
type conn interface {
	run(ctx context.Context, sql string) error // statements, to the end of their results
	column(ctx context.Context, sql string) ([]string, error)
	close() error
}

func (s *stage) ask(t testing.TB, database, sql string, args ...any) []string {
	t.Helper()
	return must(s.server.Ask(t.Context(), database, sql, args...))(t)
}

// committed counts the orders that carry the word: what anybody in the database can see of it.
func (s *stage) committed(t testing.TB, word string) string {
	t.Helper()
	return s.ask(t, s.target, s.commits(word))[0]
}

// underway waits until a connection of an account runs a statement with the word in it.
func (s *stage) underway(t testing.TB, word string) {
	t.Helper()
	err := harness.Eventually(t.Context(), 10*time.Second, func(ctx context.Context) error {
		got, err := s.server.Ask(ctx, s.target, s.running(word))
		if err == nil && len(got) == 0 {
			err = errors.New("nobody runs the statement")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// told checks that a client was told why in words, in its own protocol.
func (s *stage) told(t testing.TB, err error, words ...string) {
	t.Helper()
	said, ok := s.lastWords(err)
	if !ok {
		t.Errorf("the client was not told why: %v", err)
		return
	}
	contains(t, said, words...)
}

// everywhere plays a story on every stage at once.
func everywhere(t *testing.T, story func(t *testing.T, s *town)) {
	t.Parallel()
	for _, s := range towns {
		t.Run(s.kind, func(t *testing.T) {
			t.Parallel()
			story(t, s)
		})
	}
}
