package store

// Op names what the store does to its file, so that a test can break exactly one step.
type Op string

// The operations that a [Seam] sees.
const (
	OpBegin  Op = "begin"  // a transaction that writes
	OpCommit Op = "commit" // of one
	OpView   Op = "view"   // a transaction that reads
)

// Seam stands between the store and its file in tests. It is called with each operation and calls do to
// carry it out. Returning an error without calling do is an operation that failed; calling do and then
// returning an error is one that happened and was reported as failed. nil in production.
type Seam func(op Op, do func() error) error

func (s *Store) do(op Op, f func() error) error {
	if s.seam == nil {
		return f()
	}
	return s.seam(op, f)
}
