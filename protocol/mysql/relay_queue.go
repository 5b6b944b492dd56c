package mysql

// limitPending is how many commands may wait for their answers before the client is made to wait.
const limitPending = 1 << 16

// limitXids is how many XA transactions a session may prepare: they are remembered for as long as the grant is.
const limitXids = 10_000

// limitPrepared is how many bytes of a session's prepared statements are remembered. A server keeps far
// more for each of them; where the types of its parameters are forgotten here they are recorded as raw bytes.
// Which statement it is, is never forgotten: a session that has more of them than fit is ended.
const limitPrepared = 4 << 20

// lastPrepared stands, with MariaDB, for the statement that was prepared last.
const lastPrepared = 0xffffffff

// prepared is a statement that the server has been asked to prepare.
type prepared struct {
	id       uint64            // of the prepare on record
	ran      uint64            // of the last execute
	handle   uint32            // what the server calls it
	params   int               // its placeholders
	types    []uint16          // their types, as the last execute that told them did: type, and flags above
	long     map[uint16]uint64 // parameters whose values were sent beforehand; the first statement that did so
	answered bool              // the server has said yes or no
	failed   bool              // it said no
	bare     bool              // what was known of its parameters is forgotten
}

// ready says whether its parameters can be told apart.
func (p *prepared) ready() bool { return p != nil && p.answered && !p.failed && !p.bare }

// bareSize is what is remembered of every statement.
const bareSize = 128

func (p *prepared) size() int { return bareSize + 2*len(p.types) + 32*len(p.long) }

// statements remembers the prepared statements by the server's handles.
type statements struct {
	byHandle map[uint32]*prepared
	last     *prepared // MariaDB: what lastPrepared means
	bytes    int
	naming   int // prepares that were not answered: what the server will call them nobody knows
	resets   int // the same of what has the server forget them all
}

// asked counts commands that have not been answered and change which statements there are, and answered
// ends that.
func (s *statements) asked(command byte)    { s.count(command, 1) }
func (s *statements) answered(command byte) { s.count(command, -1) }

func (s *statements) count(command byte, n int) {
	switch command {
	case comStmtPrepare:
		s.naming += n
	case comResetConnection:
		s.resets += n
	}
}

// known says whether it is certain by now which statement a handle means.
func (s *statements) known(handle uint32, mariadb bool) bool {
	p := s.of(handle, mariadb)
	return s.resets == 0 && (s.naming == 0 || p != nil && p.answered)
}

// of gives the statement of a handle, nil if it isn't known.
func (s *statements) of(handle uint32, mariadb bool) *prepared {
	if mariadb && handle == lastPrepared {
		return s.last
	}
	return s.byHandle[handle]
}

// add remembers a statement that the server has prepared.
func (s *statements) add(p *prepared) {
	s.forget(p.handle)
	if s.byHandle == nil {
		s.byHandle = map[uint32]*prepared{}
	}
	s.byHandle[p.handle] = p
	s.bytes += p.size()
	s.fit(p)
}

// fit forgets what is known of the parameters of other statements than p, any will do, until there is no more
// than the limit.
func (s *statements) fit(p *prepared) {
	for _, other := range s.byHandle {
		if s.bytes <= limitPrepared || s.bytes-bareSize*len(s.byHandle) <= p.size()-bareSize {
			return
		}
		if other != p && (other.types != nil || other.long != nil) {
			s.bytes -= other.size()
			other.types, other.long, other.bare = nil, nil, true
			s.bytes += other.size()
		}
	}
}

// full says whether there are more than can be remembered.
func (s *statements) full() bool { return s.bytes > limitPrepared+maxPrepared }

// maxPrepared is more than one statement takes.
const maxPrepared = bareSize + (2+32)<<16

// change lets f change a statement, if there is one, and keeps count of its size.
func (s *statements) change(p *prepared, f func(*prepared)) {
	if p == nil {
		return
	}
	before := p.size()
	f(p)
	if s.byHandle[p.handle] == p {
		s.bytes += p.size() - before
		s.fit(p)
	}
}

// sent notes that a parameter's value, or a part of it, was sent ahead of the execute.
func (p *prepared) sent(place int, id uint64) {
	if place >= p.params {
		return // the server takes no notice of it
	}
	if p.long == nil {
		p.long = map[uint16]uint64{}
	}
	if p.long[uint16(place)] == 0 {
		p.long[uint16(place)] = id
	}
}

func (s *statements) forget(handle uint32) {
	if p := s.byHandle[handle]; p != nil {
		s.bytes -= p.size()
		delete(s.byHandle, handle)
	}
}

// clear forgets all.
func (s *statements) clear() { *s = statements{naming: s.naming, resets: s.resets} }

// entry is a command that the server has to answer.
type entry struct {
	command byte
	ours    bool // refused by us: the server was sent something else in its place
	ping    bool // and that is a COM_PING
	seq     byte // sequence number of the answer's first packet
	id      uint64
	at      int64     // when it was recorded, nanoseconds since the session began
	def     *prepared // prepare: the new one
	why     refusal   // if it is refused
}

// queue holds the commands without an answer, oldest first, in a ring.
type queue struct {
	ring      []entry // its length is a power of two
	first, n  int
	forwarded int // how many of them, from the first, were recorded and may have been forwarded
}

func (q *queue) at(i int) *entry { return &q.ring[(q.first+i)&(len(q.ring)-1)] }

func (q *queue) push() *entry {
	if q.n == len(q.ring) {
		ring := make([]entry, max(8, 2*q.n))
		for i := range q.n {
			ring[i] = *q.at(i)
		}
		q.ring, q.first = ring, 0
	}
	q.n++
	e := q.at(q.n - 1)
	*e = entry{}
	return e
}

func (q *queue) pop() {
	*q.at(0) = entry{} // lets go of what it points at
	q.first = (q.first + 1) & (len(q.ring) - 1)
	q.n--
	q.forwarded = max(0, q.forwarded-1)
	if q.n == 0 && len(q.ring) > 1024 {
		q.ring = nil
		q.first = 0
	}
}

// head is the command whose answer comes next, or nil.
func (q *queue) head() *entry {
	if q.n == 0 {
		return nil
	}
	return q.at(0)
}

// oldest is the id of the oldest forwarded command without an answer.
func (q *queue) oldest() uint64 {
	if min(q.n, q.forwarded) == 0 {
		return 0
	}
	return q.at(0).id
}
