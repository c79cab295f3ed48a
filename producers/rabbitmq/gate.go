package rabbitmq

import (
	"net"
	"sync"
	"time"
)

// gate bounds in bytes what a broker pushes. A prefetch counts messages, and the
// client buffers all that arrive, so the only place to hold them up is the socket:
// while messages that are not settled weigh limit or more, nothing is read, and the broker
// is stopped by TCP's own window. Acknowledgements and heartbeats still go out.
//
// What is in memory is limit, one message more (the client may be in the middle of
// it), and what is on its way through the client's goroutines.
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

// full says whether the limit is reached.
func (g *gate) full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit > 0 && g.held >= g.limit
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

// gatedConn is a connection that is read through a gate.
type gatedConn struct {
	net.Conn
	gate *gate

	mu       sync.Mutex    // protects following field
	patience time.Duration // how long a Read may take, as set last; 0 for ever
}

// Read waits for the gate. The time that it waits does not count against the read
// deadline, by which the client notices that the broker sends no heartbeats.
func (c *gatedConn) Read(p []byte) (int, error) {
	if c.gate.pass() {
		c.mu.Lock()
		patience := c.patience
		c.mu.Unlock()
		if patience > 0 {
			if err := c.Conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return 0, err
			}
		}
	}
	return c.Conn.Read(p)
}

// SetReadDeadline remembers how far away the deadline is.
func (c *gatedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.patience = 0
	if !t.IsZero() {
		c.patience = max(time.Until(t), time.Millisecond)
	}
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

// Close lets the reader see that the connection is closed.
func (c *gatedConn) Close() error {
	err := c.Conn.Close()
	c.gate.open()
	return err
}
