package mysql

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
)

// firstID is the least of the connection ids that are ours. A server counts its own up from 1, and
// CONNECTION_ID() tells a client the server's, so the two must not meet.
const firstID = 1 << 31

// ids are the connection ids that clients of a Front were greeted with. A client never hears the
// backend's in a greeting; which session an id stands for is asked of the grant's account, so nobody
// can kill past their own grant.
type ids struct {
	mu   sync.Mutex // guards used
	used map[uint32]bool
}

func (i *ids) init() { i.used = map[uint32]bool{} }

// take makes an id that nobody has.
func (i *ids) take() uint32 {
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		id := binary.LittleEndian.Uint32(b[:]) | firstID
		if !i.used[id] {
			i.used[id] = true
			return id
		}
	}
}

func (i *ids) release(id uint32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.used, id)
}

// ours gives the id that somebody wants killed, if it is one of those that clients are greeted with.
func ours(id uint64) (uint32, bool) {
	return uint32(id), id >= firstID && id>>32 == 0
}
