package wire

import "sync"

// link is what both decoders have: one connection, and whether it can still be read.
type link struct {
	conn int64
	emit func(Event)

	mu     sync.Mutex // protects following field, and the decoder around it
	failed bool
}

// feed gives bytes to step until they fail. The first failure is told, what comes after it ignored: a stream has no place to
// begin anew.
func (l *link) feed(at int64, p []byte, step func(at int64, p []byte) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed {
		return
	}
	if err := step(at, p); err != nil {
		l.failed = true
		l.emit(Event{Kind: Undecodable, At: at, Conn: l.conn, Text: err.Error()})
	}
}

// Close tells that the connection has ended.
func (l *link) Close(at int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = true
	l.emit(Event{Kind: Closed, At: at, Conn: l.conn})
}

// gather appends of p to buf until that has n bytes, and returns what is left of p.
func gather(buf, p []byte, n int) (grown, rest []byte) {
	take := min(n-len(buf), len(p))
	return append(buf, p[:take]...), p[take:]
}
