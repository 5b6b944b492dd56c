package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sort"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

var errEnough = errors.New("enough was read")

// Receipt implements Grants: the two entries that the ledger has of a grant's end. Entries are in the
// order of time, so the search begins where the grant ended.
func (d *Desk) Receipt(ctx context.Context, g policy.Grant) (*Receipt, error) {
	end := g.End
	if !g.Ended.IsZero() && g.Ended.Before(end) {
		end = g.Ended
	}
	size, err := d.size(ctx)
	if err != nil {
		return nil, err
	}
	var failed error
	from := sort.Search(int(size), func(n int) bool {
		e, err := d.entry(ctx, int64(n))
		failed = errors.Join(failed, err)
		return err != nil || !e.Time.Before(end)
	})
	if failed != nil {
		return nil, failed
	}
	var r *Receipt
	err = d.Ledger.Entries(ctx, int64(from), func(line []byte) error {
		if !bytes.Contains(line, []byte(g.ID)) {
			return nil // most lines: not worth decoding
		}
		e, err := ledger.Decode(line)
		if err != nil {
			return err
		}
		r, err = r.join(e, g.ID)
		if err == nil && r != nil && r.Clean != nil {
			return errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return r, err
}

// join adds an entry to what is known of the grant's end; the first of each kind counts.
func (r *Receipt) join(e ledger.Entry, grant string) (*Receipt, error) {
	switch e.Type {
	case ledger.TypeAccountCut:
		var cut ledger.AccountCut
		if err := json.Unmarshal(e.Data, &cut); err != nil || cut.Grant != grant || r != nil {
			return r, err
		}
		return &Receipt{
			Account: cut.Account, Code: cut.Code, Reason: cut.Reason, Deadline: cut.Deadline, LateMS: cut.LateMS, Cut: cut.Cut,
		}, nil
	case ledger.TypeAccountCleaned:
		var clean ledger.AccountCleaned
		if err := json.Unmarshal(e.Data, &clean); err != nil || clean.Grant != grant || r == nil {
			return r, err
		}
		r.Clean = clean.Clean
	}
	return r, nil
}

// size counts the ledger's entries, as its latest checkpoint has them.
func (d *Desk) size(ctx context.Context) (int64, error) {
	note, err := d.Ledger.Checkpoint(ctx)
	if err != nil {
		return 0, err
	}
	c, err := ledger.ParseCheckpoint(note, d.Ledger.VerifierKey())
	return c.Size, err
}

func (d *Desk) entry(ctx context.Context, n int64) (e ledger.Entry, err error) {
	err = d.Ledger.Entries(ctx, n, func(line []byte) error {
		if e, err = ledger.Decode(line); err != nil {
			return err
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return e, err
}
