package store

import (
	"bytes"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// check reads the whole ledger and holds it against the last signed checkpoint and the grants. It
// leaves the tree ready for the next entry.
func (s *Store) check(tx *Tx, high time.Time) error {
	h, err := tx.head()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	c, err := ledger.ParseCheckpoint(h.checkpoint, s.signer.VerifierKey())
	if err != nil {
		return fmt.Errorf("%w, or this is not the key it was begun with: %w", ErrTampered, err)
	}
	if c.Origin != ledger.Origin(s.installation) {
		return fmt.Errorf("%w: its checkpoint is of %s, its installation is %s", ErrTampered, c.Origin, s.installation)
	}
	var tree ledger.Tree
	var last []byte
	live := liveGrants{}
	err = tx.entries(0, func(line []byte) error {
		tree.Append(ledger.LeafHash(line))
		last = append(last[:0], line...)
		if err := live.see(line); err != nil {
			return fmt.Errorf("%w: %w", ErrTampered, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case tree.Size() != c.Size:
		return fmt.Errorf("%w: it holds %d entries, its last checkpoint signs %d", ErrTampered, tree.Size(), c.Size)
	case tree.Root() != c.Root:
		return fmt.Errorf("%w: its entries do not add up to its last checkpoint", ErrTampered)
	case !h.is(tree):
		return fmt.Errorf("%w: the row beside its last checkpoint differs from it", ErrTampered)
	}
	if err := checkTime(last, high); err != nil {
		return err
	}
	if err := live.compare(tx); err != nil {
		return err
	}
	s.tree = tree
	s.size.Store(tree.Size())
	return nil
}

// checkTime refuses a high-water mark that was set back behind the ledger's last entry.
func checkTime(last []byte, high time.Time) error {
	e, err := ledger.Decode(last)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if high.Before(e.Time) {
		return fmt.Errorf("%w: its high-water mark of time is before its last entry of %s",
			ErrTampered, e.Time.Format(time.RFC3339))
	}
	return nil
}

// liveGrants is what the ledger says of the grants that have not ended, by their ids.
type liveGrants map[string]ledger.GrantCreated

func (l liveGrants) see(line []byte) error {
	// Few entries are about grants, and decoding all of them would be most of the cost of a start.
	if !bytes.Contains(line, []byte(`"type":"grant.`)) {
		return nil
	}
	e, err := ledger.Decode(line)
	if err != nil {
		return err
	}
	switch e.Type {
	case ledger.TypeGrantCreated:
		var created ledger.GrantCreated
		if err := e.Into(&created); err != nil {
			return err
		}
		l[created.Grant] = created
	case ledger.TypeGrantExtended:
		var longer ledger.GrantExtended
		if err := e.Into(&longer); err != nil {
			return err
		}
		if g, live := l[longer.Grant]; live {
			g.End = longer.To
			l[longer.Grant] = g
		}
	case ledger.TypeGrantEnded:
		var ended ledger.GrantEnded
		if err := e.Into(&ended); err != nil {
			return err
		}
		delete(l, ended.Grant)
	}
	return nil
}

// compare refuses a row that would let somebody in on other terms than the ledger says. A grant that
// is live on the ledger and not in the rows lets nobody in, but it has lost its end: refused as well.
func (l liveGrants) compare(tx *Tx) error {
	rows, err := tx.Grants(GrantFilter{Live: true})
	if err != nil {
		return err
	}
	seen := 0
	for _, g := range rows {
		created, ok := l[g.ID]
		if !ok || !same(g, created) {
			return fmt.Errorf("%w: grant %s is not what its ledger says", ErrTampered, g.ID)
		}
		seen++
	}
	if seen != len(l) {
		return fmt.Errorf("%w: %d grants are live on its ledger, it holds %d", ErrTampered, len(l), seen)
	}
	return nil
}

func same(g policy.Grant, c ledger.GrantCreated) bool {
	return g.Request == c.Request && g.Target == c.Target && g.Level == c.Level &&
		g.Identity.Issuer == c.Person.Issuer && g.Identity.Subject == c.Person.Subject &&
		g.Start.Equal(c.Start) && g.End.Equal(c.End) && g.BreakGlass == c.BreakGlass
}
