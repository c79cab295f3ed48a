package rabbitmq

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// gate bounds in bytes what a broker pushes. A prefetch counts messages, so the only place
// to hold them up is the socket: while messages that are not settled weigh limit or more,
// nothing is read, and the broker is stopped by TCP's own window. Acknowledgements and
// heartbeats still go out.
//
// What is in memory is less than limit before a message comes, that message, and what
// was read ahead: see frames.
type gate struct {
	limit int64 // 0 means none

	mu      sync.Mutex // protects following fields
	held    int64
	free    int           // calls of open without one of shut
	opened  chan struct{} // closed when the reader may go on; nil while none waits
	changed func()        // called without mu when the reader begins or ends to wait
}

// tell makes f be called when the reader begins or ends to wait.
func (g *gate) tell(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed = f
}

// add counts a message that has arrived.
func (g *gate) add(bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held += bytes
}

// done counts messages that are settled.
func (g *gate) done(bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held -= bytes
	g.release()
}

// open lets everything through: an answer of the broker is waited for, or the
// connection is closed.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free++
	g.release()
}

// shut undoes open.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free--
}

// release is called with mu held.
func (g *gate) release() {
	if g.opened != nil && !g.closed() {
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) closed() bool { return g.limit > 0 && g.free == 0 && g.held >= g.limit }

// full says whether the limit is reached with so much more.
func (g *gate) full(more int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit > 0 && g.held+more >= g.limit
}

// waits says whether the reader is held up now.
func (g *gate) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}

// pass returns when the reader may read, and says whether it had to wait.
func (g *gate) pass() (waited bool) {
	for {
		g.mu.Lock()
		if !g.closed() {
			g.mu.Unlock()
			return waited
		}
		if g.opened == nil {
			g.opened = make(chan struct{})
		}
		opened, changed := g.opened, g.changed
		g.mu.Unlock()
		waited = true
		if changed != nil {
			changed()
		}
		<-opened
		if changed != nil {
			changed()
		}
	}
}

// gatedConn is a connection that is read through a gate. One goroutine reads.
type gatedConn struct {
	conn     net.Conn
	gate     *gate
	patience atomic.Int64 // how long a Read waits at most, in nanoseconds; 0 for ever
	renewed  time.Time    // when Read has set the deadline
}

// expect makes a Read fail that nothing comes for: so it is noticed that the broker sends
// no heartbeats. It is called once.
func (c *gatedConn) expect(patience time.Duration) error {
	if patience <= 0 {
		return nil
	}
	c.patience.Store(int64(patience))
	return c.conn.SetReadDeadline(time.Now().Add(patience)) // of the Read that runs
}

// Read waits for the gate. The time that it waits does not count against patience. The
// deadline is moved only once a sixteenth of patience is over, as to set it costs as much
// as to read: by so much less a silent broker may be given.
func (c *gatedConn) Read(p []byte) (int, error) {
	const part = 16
	waited := c.gate.pass()
	if patience := time.Duration(c.patience.Load()); patience > 0 {
		if now := time.Now(); waited || now.Sub(c.renewed) > patience/part {
			if err := c.conn.SetReadDeadline(now.Add(patience)); err != nil {
				return 0, err
			}
			c.renewed = now
		}
	}
	return c.conn.Read(p)
}

// Write writes past the gate.
func (c *gatedConn) Write(p []byte) (int, error) { return c.conn.Write(p) }

// Close lets the reader see that the connection is closed.
func (c *gatedConn) Close() error {
	err := c.conn.Close()
	c.gate.open()
	return err
}
