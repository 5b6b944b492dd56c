package mysql

import (
	"context"
	"net"
	"time"
)

const (
	// strangerTime is how long somebody may take to prove who they are.
	strangerTime = 10 * time.Second
	// wordsTime is how long a client may take to read its last message.
	wordsTime = time.Second
)

// watch puts conn under ctx: when ctx ends, whoever reads or writes it is woken. The returned function
// ends that; then no deadline is left unless ctx has ended.
func watch(ctx context.Context, conn net.Conn) (release func()) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(woken)
	})
	return func() {
		if !stop() {
			<-woken
		}
	}
}
