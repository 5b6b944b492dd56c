package postgres

// limitPending is how many requests may wait for their answers before the client is made to wait.
const limitPending = 1 << 16

// limitNamed is how many bytes of a session's named statements and portals are remembered. A server
// keeps far more for each of them; what is forgotten here is recorded without its types.
const limitNamed = 4 << 20

// nameKey is a statement's or portal's name as the server tells them apart: by the first 63 bytes.
type nameKey struct {
	n byte
	b [63]byte
}

func keyOf(name []byte) (k nameKey) {
	k.n = byte(copy(k.b[:], name))
	return k
}

// prepared is what Parse said about a statement.
type prepared struct {
	id        uint64
	oids      []uint32 // types of its parameters; 0 where nobody has told
	segment   uint64   // between which Syncs it was parsed
	confirmed bool     // the server has said ParseComplete
	dead      bool     // the server has refused it
}

// portal is what Bind made.
type portal struct {
	bind      uint64 // statement id of the Bind; 0 = none
	segment   uint64
	confirmed bool
}

// entry is a request that the server has to answer.
type entry struct {
	kind    byte // its message type; 0: a Sync amid copy data, CopyDone or CopyFail: the end of copy data
	sub     byte // Describe, Close: 'S' or 'P'
	ours    bool // refused by us: the server was sent something else in its place
	id      uint64
	at      int64 // when it was recorded, nanoseconds since the session began
	key     nameKey
	def     *prepared // Parse: the new one; Describe: the one that is described
	prev    *prepared // Parse, Close: the one that had the name before
	was     portal    // Bind, Close: the one that had the name before
	copied  *digest   // end of copy data
	settled bool      // its result was held; Describe: its types began to come; end of copy data: accounted for
}

// request says whether the server answers it, or skips it; a Sync ends the skipping.
func (e *entry) request() bool {
	switch e.kind {
	case 0, msgSync, msgCopyDone, msgCopyFail:
		return false
	}
	return true
}

// voidSync says whether it is a Sync that the server takes no notice of, as far as the copy goes well.
func (e *entry) voidSync() bool { return e.kind == 0 }

// queue holds the requests without an answer, oldest first, in a ring.
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

// head is the request whose answer comes next, or nil. Ends of copy data are never answered.
func (q *queue) head() *entry {
	for q.n > 0 {
		e := q.at(0)
		if e.request() || e.kind == msgSync {
			return e
		}
		q.pop()
	}
	return nil
}

// oldest is the id of the oldest forwarded statement without a result.
func (q *queue) oldest() uint64 {
	for i := range min(q.n, q.forwarded) {
		switch e := q.at(i); e.kind {
		case msgQuery, msgParse, msgBind, msgExecute, msgFunctionCall:
			return e.id
		}
	}
	return 0
}

// names remembers statements and portals. It runs ahead of the server: what the client sent counts at
// once, and is undone when the server refuses it.
type names struct {
	statements map[nameKey]*prepared
	unnamed    *prepared
	portals    map[nameKey]portal
	portal     portal // the unnamed one
	bytes      int    // what the maps hold
	spare      *prepared
	segment    uint64 // Syncs seen so far
}

func (p *prepared) size() int { return 64 + 64 + 4*len(p.oids) }

func (n *names) statement(k nameKey) *prepared {
	if k.n == 0 {
		return n.unnamed
	}
	return n.statements[k]
}

// setStatement gives a name to def, nil for none, and returns what had it.
func (n *names) setStatement(k nameKey, def *prepared) (prev *prepared) {
	if k.n == 0 {
		prev, n.unnamed = n.unnamed, def
		return prev
	}
	if prev = n.statements[k]; prev != nil {
		n.bytes -= prev.size()
		delete(n.statements, k)
	}
	if def == nil {
		return prev
	}
	for other, p := range n.statements { // any will do: a client that has so many is not a usual one
		if n.bytes+def.size() <= limitNamed {
			break
		}
		n.bytes -= p.size()
		delete(n.statements, other)
	}
	if n.statements == nil {
		n.statements = map[nameKey]*prepared{}
	}
	n.statements[k] = def
	n.bytes += def.size()
	return prev
}

func (n *names) portalOf(k nameKey) portal {
	if k.n == 0 {
		return n.portal
	}
	return n.portals[k]
}

const portalSize = 128

// setPortal gives a name to p, the zero portal for none, and returns what had it.
func (n *names) setPortal(k nameKey, p portal) (was portal) {
	if k.n == 0 {
		was, n.portal = n.portal, p
		return was
	}
	was, had := n.portals[k]
	if had {
		n.bytes -= portalSize
		delete(n.portals, k)
	}
	if p.bind == 0 {
		return was
	}
	for other := range n.portals {
		if n.bytes+portalSize <= limitNamed {
			break
		}
		n.bytes -= portalSize
		delete(n.portals, other)
	}
	if n.portals == nil {
		n.portals = map[nameKey]portal{}
	}
	n.portals[k] = p
	n.bytes += portalSize
	return was
}

// newPrepared reuses what recycle was given: an unnamed Parse in steady state allocates nothing.
func (n *names) newPrepared() *prepared {
	p := n.spare
	n.spare = nil
	if p == nil {
		return &prepared{segment: n.segment}
	}
	*p = prepared{oids: p.oids[:0], segment: n.segment}
	return p
}

// recycle takes a statement that nothing points at any more.
func (n *names) recycle(p *prepared) {
	if p != nil && cap(p.oids) < 1024 {
		n.spare = p
	}
}

// certain says whether what the client believes to be there is what the server has: it said so, or it
// will skip what comes after if it does not have it.
func (n *names) certain(confirmed bool, segment uint64) bool {
	return confirmed || segment == n.segment
}

// undo takes back what a request did to the names, because the server refused or skipped it.
func (n *names) undo(e *entry) {
	switch {
	case e.kind == msgParse:
		e.def.dead = true
		if n.statement(e.key) == e.def {
			n.setStatement(e.key, alive(e.prev))
		}
	case e.kind == msgBind:
		if n.portalOf(e.key).bind == e.id {
			n.setPortal(e.key, e.was)
		}
	case e.kind == msgClose && e.sub == 'S':
		if n.statement(e.key) == nil {
			n.setStatement(e.key, alive(e.prev))
		}
	case e.kind == msgClose && e.sub == 'P':
		if n.portalOf(e.key).bind == 0 {
			n.setPortal(e.key, e.was)
		}
	}
}

func alive(p *prepared) *prepared {
	if p != nil && p.dead {
		return nil
	}
	return p
}

// forgetStatements forgets all named statements: SQL has deallocated or made some, and does not say which.
func (n *names) forgetStatements() {
	for k, p := range n.statements {
		n.bytes -= p.size()
		delete(n.statements, k)
	}
}

// dropUnnamed forgets the unnamed statement and portal: a Query makes its own, and drops both.
func (n *names) dropUnnamed() { n.unnamed, n.portal = nil, portal{} }

// forgetPortals forgets all portals: they don't outlive their transaction.
func (n *names) forgetPortals() {
	n.bytes -= portalSize * len(n.portals)
	clear(n.portals)
	n.portal = portal{}
}
