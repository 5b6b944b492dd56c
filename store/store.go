package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the database/sql driver "sqlite"

	"github.com/curfewdb/curfew/recorder/ledger"
)

//go:embed sql/*.sql
var migrations embed.FS

// ErrNotFound means that there is no such row.
var ErrNotFound = errors.New("not found")

// ErrTampered means that the file is not what this store wrote last; it is wrapped by what Open and
// Update return then, and nothing is written any more.
var ErrTampered = errors.New("the store was changed behind Curfew's back")

// Options say where the store is and with which key it signs.
type Options struct {
	Path string // the SQLite file; its directory must exist

	// SigningKey signs the checkpoints (note format). If it is empty, the key is read from the file
	// KeyPath, which is made, readable by its owner only, when the store is new.
	SigningKey string
	KeyPath    string

	Version string // of the program, for the ledger's first entry
	Node    string // this node's name, for the entries that the store writes itself; default: the host's
	Log     *slog.Logger

	// Observe is told of every Update: how long it took, the wait for its turn included, and what it
	// returned. It must not wait.
	Observe func(took time.Duration, err error)

	Seam Seam             // nil but in tests
	Wall func() time.Time // the wall clock; nil but in tests: time.Now
}

// Store is an open store.
type Store struct {
	log          *slog.Logger
	base         context.Context // Open's, without its end: for what Close still has to write
	node         string
	path         string
	write, read  *sql.DB
	writing      *statements // of write
	reading      *statements // of read
	lock         *os.File
	seam         Seam
	place        place
	signer       *ledger.Signer
	installation string
	clock        clock
	strangers    strangers
	observe      func(time.Duration, error)
	size         atomic.Int64 // entries of the ledger

	turn chan struct{} // holds one token; who has it may write, and owns the fields below

	tree    ledger.Tree   // the ledger as it is committed
	pending *ledger.Tree  // after a commit that was reported as failed: what it would have made
	backset time.Duration // how far the wall clock was behind when that was last put on the ledger

	anchorMu sync.Mutex // guards anchored and the order of appends to anchor files
	anchored map[string]int64
}

// Open opens the store, makes it if there is none, and refuses it if it was tampered with.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		log:      o.Log,
		base:     context.WithoutCancel(ctx),
		node:     o.Node,
		seam:     o.Seam,
		clock:    clock{wall: o.Wall},
		observe:  o.Observe,
		turn:     make(chan struct{}, 1),
		anchored: map[string]int64{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.node == "" {
		s.node, _ = os.Hostname()
	}
	s.strangers.counts = map[stranger]int{}
	s.turn <- struct{}{}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", o.Path, err), s.release())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, o Options) (err error) {
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return err
	}
	s.path = path
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return err
	}
	// SQLite gives its own files the mode of the first one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if s.write, err = openSQL(path); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	s.writing = newStatements(s.write)
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn(path, "_pragma", "query_only(1)")); err != nil {
		return err
	}
	s.reading = newStatements(s.read)
	s.read.SetMaxOpenConns(5) // one of them is place's
	s.read.SetMaxIdleConns(5)
	if err := s.begin(ctx, o); err != nil {
		return err
	}
	return s.settleDown(ctx, path)
}

func openSQL(path string) (*sql.DB, error) {
	return sql.Open("sqlite", dsn(path, "_txlock", "immediate"))
}

// dsn never makes a file: beside an empty one that a reader made where the store was moved away, SQLite would
// take the log for a leftover, and remove it.
func dsn(path string, more ...string) string {
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}}
	for i := 0; i < len(more); i += 2 {
		q.Add(more[i], more[i+1])
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "sql")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if has > knows {
		return fmt.Errorf("its schema has version %d, this program knows %d: it was written by a newer Curfew", has, knows)
	}
	_, err = p.Up(ctx)
	return err
}

// Installation is this store's id, six characters made when the store was.
func (s *Store) Installation() string { return s.installation }

// VerifierKey is the public key of the checkpoints, in note format.
func (s *Store) VerifierKey() string { return s.signer.VerifierKey() }

// Checkpoint is the latest signed checkpoint.
func (s *Store) Checkpoint(ctx context.Context) (msg []byte, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		h, err := tx.head()
		msg = h.checkpoint
		return err
	})
	return msg, err
}

// Entries hands fn the ledger's lines in order, from the entry with index from, as one snapshot. The
// slice is fn's only until it returns; an error from fn ends it and is returned.
func (s *Store) Entries(ctx context.Context, from int64, fn func(line []byte) error) error {
	return s.View(ctx, func(tx *Tx) error { return tx.entries(from, fn) })
}

// Size is how many entries the ledger has, as far as this process knows. It waits for nothing.
func (s *Store) Size() int64 { return s.size.Load() }

// Close writes what is left in memory and closes the file.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(s.base, 10*time.Second)
	defer cancel()
	return errors.Join(s.tick(ctx, true), s.release())
}

func (s *Store) release() error {
	errs := []error{s.place.close()}
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
