package main

import (
	"context"
	"slices"
)

// measurement makes one or more rows of the table.
type measurement struct {
	names []string // what ONLY may say for it
	what  string   // for the line that says that it begins
	do    func(context.Context, *stage) ([]row, error)
}

func measurements() []measurement {
	return []measurement{
		{[]string{"pgbench"}, "pgbench -S, no TLS", pgbenchRows},
		{[]string{"tls"}, "pgbench -S, TLS on the client's leg", tlsRows},
		{[]string{"copy"}, "COPY out", copyRows},
		{[]string{"mariadb"}, "MariaDB point selects", mariadbRows},
		{[]string{"accounts"}, "sessions with an account of their own", accountRows},
		{[]string{"open"}, "opening sessions under a live grant", openRows},
		{[]string{"ends"}, "ends of grants with a query in flight", endRows},
		{[]string{"crowd"}, "the end of a grant with a thousand sessions", crowdRows},
		{[]string{"memory"}, "memory of idle sessions", memoryRows},
		{[]string{"recording"}, "recording on against off", recordingRows},
		{[]string{"durability"}, "durability: disk against process", durabilityRows},
		{[]string{"size"}, "size of sealed recordings", sizeRows},
		{[]string{"replay"}, "a million statements in the player", replayRows},
		{[]string{"export"}, "export to JSONL", exportRows},
	}
}

func rowNames() (all []string) {
	for _, m := range measurements() {
		all = append(all, m.names...)
	}
	return all
}

func known(name string) bool { return slices.Contains(rowNames(), name) }

func (st *stage) wanted(m measurement) bool {
	only := split(st.set.only)
	return len(only) == 0 || slices.ContainsFunc(m.names, func(n string) bool { return slices.Contains(only, n) })
}
