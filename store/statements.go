package store

import (
	"context"
	"database/sql"
	"sync"
)

// statementsMost bounds what is kept; the texts are this package's own, and few.
const statementsMost = 200

// statements keeps what is asked of a database ready to run. SQLite takes as long to read a statement's text as to
// run it, here, and there are some thirty in the life of a session.
type statements struct {
	db *sql.DB

	mu   sync.Mutex           // guards kept
	kept map[string]*sql.Stmt // by their text; nil: it is being made ready
}

func newStatements(db *sql.DB) *statements {
	return &statements{db: db, kept: map[string]*sql.Stmt{}}
}

// in gives a statement for a transaction; nil: it is not ready yet. Only one answer of it may be open at a time.
func (p *statements) in(ctx context.Context, tx *sql.Tx, query string) *sql.Stmt {
	if p == nil { // of a database that is looked at once
		return nil
	}
	p.mu.Lock()
	stmt, known := p.kept[query]
	if !known && len(p.kept) < statementsMost {
		p.kept[query] = nil
		go p.keep(context.WithoutCancel(ctx), query)
	}
	p.mu.Unlock()
	if stmt == nil {
		return nil
	}
	return tx.StmtContext(ctx, stmt)
}

// keep makes a statement ready, when the transaction that asked for it has left its connection.
func (p *statements) keep(ctx context.Context, query string) {
	stmt, err := p.db.PrepareContext(ctx, query)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil { // whoever comes next tries again
		delete(p.kept, query)
		return
	}
	p.kept[query] = stmt
}
