package mysql

// limitPending is how many commands may wait for their answers before the client is made to wait.
const limitPending = 1 << 16

// limitPrepared is how many bytes of a session's prepared statements are remembered. A server keeps far
// more for each of them; the parameters of what is forgotten here are recorded as raw bytes.
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
}

func (p *prepared) size() int { return 128 + 2*len(p.types) + 32*len(p.long) }

// statements remembers the prepared statements by the server's handles.
type statements struct {
	byHandle map[uint32]*prepared
	last     *prepared // MariaDB: what lastPrepared means
	bytes    int
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

// fit forgets other statements than p, any will do, until there is no more than the limit.
func (s *statements) fit(p *prepared) {
	for handle, other := range s.byHandle {
		if s.bytes <= limitPrepared {
			return
		}
		if other != p {
			s.bytes -= other.size()
			delete(s.byHandle, handle)
		}
	}
}

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
func (s *statements) clear() { *s = statements{} }

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
