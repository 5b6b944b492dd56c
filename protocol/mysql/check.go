package mysql

import (
	"context"

	"github.com/curfewdb/curfew/protocol"
)

// Severities of findings.
const (
	severityError   = "error"
	severityWarning = "warning"
	severityNote    = "note"
)

// Setup prints the SQL that gives the broker what Check looks for. It may be run again at any time.
func (e *Engine) Setup(levels []protocol.Level) string { return "" }

// Check says in plain words what the broker lacks on the target for these levels.
func (e *Engine) Check(ctx context.Context, levels []protocol.Level) ([]protocol.Finding, error) {
	return nil, nil
}
