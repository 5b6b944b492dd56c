package postgres

// link is a client joined to a backend.
type link struct {
	backend uint32
	db      string
}

func (l *link) pid() uint32        { return l.backend }
func (l *link) database() string   { return l.db }
func (l *link) inFlight() uint64   { return 0 }
func (l *link) prepared() []string { return nil }
