package store

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// Places where strangers are turned away, a closed set.
const (
	AtWire = "wire" // logins of database clients
	AtAPI  = "api"
	AtWeb  = "web"  // forms and logins of the pages
	AtLink = "link" // links to the pages: used, over, made up, or somebody else's

	AtToken  = "token"  // tokens of the provider's own, at the API or the wire
	AtLogout = "logout" // back-channel logouts
)

var places = []string{AtWire, AtAPI, AtWeb, AtLink, AtToken, AtLogout}

// maxStrangers bounds the entries that a minute of failed logins can make, wherever they come from.
const maxStrangers = 100

// otherStrangers stands for all addresses beyond maxStrangers in one minute.
const otherStrangers = "others"

// stranger is what failed logins are counted by.
type stranger struct {
	minute      time.Time
	from, where string
}

// strangers counts failed logins in memory; the zero value with a map is ready.
type strangers struct {
	mu     sync.Mutex
	counts map[stranger]int // guarded by mu
}

// FailedLogin counts a failed login from an address (a port is cut off) at one of the places. It never
// blocks on the disk and never fails; Tick puts the counts on the ledger. A minute makes at most 100
// entries, and addresses of one IPv6 /64 count as one: who fails to log in can't fill the ledger.
func (s *Store) FailedLogin(from, where string) {
	s.strangers.count(s.Now(), network(from), where)
}

func (c *strangers) count(now time.Time, from, where string) {
	if !slices.Contains(places, where) {
		where = AtWire // so that it can't multiply the keys
	}
	key := stranger{minute: now.Truncate(time.Minute), from: from, where: where}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.counts[key]; !known && c.inMinute(key.minute) >= maxStrangers-len(places) {
		key.from = otherStrangers // one more entry for each place
	}
	c.counts[key]++
}

func (c *strangers) inMinute(minute time.Time) int {
	n := 0
	for k := range c.counts {
		if k.minute.Equal(minute) && k.from != otherStrangers {
			n++
		}
	}
	return n
}

// due gives the counts of the minutes that are over, or all of them.
func (c *strangers) due(now time.Time, all bool) []ledger.LoginsFailed {
	minute := now.Truncate(time.Minute)
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []ledger.LoginsFailed
	for k, n := range c.counts {
		if all || k.minute.Before(minute) {
			due = append(due, ledger.LoginsFailed{From: k.from, Minute: k.minute, Count: n, Where: k.where})
		}
	}
	slices.SortFunc(due, func(a, b ledger.LoginsFailed) int {
		return cmp.Or(a.Minute.Compare(b.Minute), cmp.Compare(a.From, b.From), cmp.Compare(a.Where, b.Where))
	})
	return due
}

// forget drops what is on the ledger now; what was counted meanwhile stays.
func (c *strangers) forget(kept []ledger.LoginsFailed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range kept {
		key := stranger{minute: f.Minute, from: f.From, where: f.Where}
		if c.counts[key] -= f.Count; c.counts[key] <= 0 {
			delete(c.counts, key)
		}
	}
}

// network is the address without its port, and of IPv6 the /64, which one customer has whole.
func network(from string) string {
	addr, err := netip.ParseAddr(from)
	if err != nil {
		port, err := netip.ParseAddrPort(from)
		if err != nil {
			return "unknown"
		}
		addr = port.Addr()
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return "unknown"
	}
	return prefix.String()
}
