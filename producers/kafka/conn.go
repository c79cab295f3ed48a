package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errShut is why dials fail once the network is shut.
var errShut = errors.New("kafka: the producer is closed")

// network is the dial hook of everything that kafka-go connects. It owns the
// connections: kafka-go has calls without any time limit (an authentication, a
// round trip whose context has no deadline) and calls that outlive their caller,
// so each connection here has a deadline for progress, and shut ends them all.
type network struct {
	dialer net.Dialer
	// progress is how long one Read or Write may take that its caller gave no
	// deadline for.
	progress time.Duration

	mu    sync.Mutex // protects following fields
	conns map[*conn]struct{}
	down  bool
	empty chan struct{} // closed when down and no connection is left
}

func newNetwork(progress time.Duration) *network {
	return &network{
		dialer:   net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second},
		progress: progress,
		conns:    map[*conn]struct{}{},
		empty:    make(chan struct{}),
	}
}

// dial connects and registers the connection.
func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	if n.isDown() {
		return nil, errShut
	}
	raw, err := n.dialer.DialContext(ctx, kind, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, network: n, address: address}
	n.mu.Lock()
	down := n.down
	if !down {
		n.conns[c] = struct{}{}
	}
	n.mu.Unlock()
	if down {
		return nil, errors.Join(errShut, raw.Close())
	}
	return c, nil
}

func (n *network) isDown() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down
}

// cut closes every connection; what waits on one fails. New ones may follow.
func (n *network) cut() { n.cutIf(func(*conn) bool { return true }) }

// cutTo closes the connections to an address.
func (n *network) cutTo(address string) {
	n.cutIf(func(c *conn) bool { return c.address == address })
}

// cutPolls refuses new connections, and closes those on which a long poll may wait:
// once nobody wants its answer.
func (n *network) cutPolls() {
	n.refuse()
	n.cutIf(func(c *conn) bool { return c.polling.Load() })
}

func (n *network) cutIf(pick func(*conn) bool) {
	n.mu.Lock()
	conns := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		if pick(c) {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, c := range conns {
		_ = c.Conn.Close() // its owner learns of it, and calls our Close
	}
}

// refuse makes dials fail from now on.
func (n *network) refuse() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.down {
		n.down = true
		n.settle()
	}
}

// shut closes every connection and refuses new ones.
func (n *network) shut() {
	n.refuse()
	n.cut()
}

// await returns once the network is down and empty, or after d.
func (n *network) await(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-n.empty:
		return true
	case <-timer.C:
		return false
	}
}

// forget is called by a connection that its owner has closed.
func (n *network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.conns[c]; known {
		delete(n.conns, c)
		n.settle()
	}
}

// settle tells waiters when nothing is left. Callers hold mu.
func (n *network) settle() {
	if n.down && len(n.conns) == 0 {
		close(n.empty)
	}
}

// conn is one connection. It knows what only a connection can know: which API
// versions the broker at its other end speaks, and the last correlation id.
// Exchanges find it through LocalAddr, as TLS and kafka-go wrap it.
type conn struct {
	net.Conn
	network *network
	address string      // as it was dialled
	reading atomic.Bool // the owner set a read deadline of its own
	writing atomic.Bool
	polling atomic.Bool // a Fetch is under way

	// Only the exchange that runs on the connection touches these.
	versions    map[int16]versionRange
	correlation int32
}

// connAddr leads from an address back to its connection.
type connAddr struct {
	net.Addr
	conn *conn
}

// connOf is the connection below what kafka-go hands out, nil when it is not
// one of ours.
func connOf(c interface{ LocalAddr() net.Addr }) *conn {
	if a, ok := c.LocalAddr().(connAddr); ok {
		return a.conn
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr { return connAddr{c.Conn.LocalAddr(), c} }

func (c *conn) Read(b []byte) (int, error) {
	if !c.reading.Load() {
		if err := c.Conn.SetReadDeadline(time.Now().Add(c.network.progress)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *conn) Write(b []byte) (int, error) {
	if !c.writing.Load() {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.network.progress)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.reading.Store(!t.IsZero())
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writing.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.network.forget(c)
	if errors.Is(err, net.ErrClosed) {
		return nil // cut was first
	}
	return err
}
