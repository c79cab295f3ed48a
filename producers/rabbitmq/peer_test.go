package rabbitmq_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// peer is a server that speaks as much of AMQP 0-9-1 as a consumer needs, with one
// queue, for what the broker of the tests does not say: it stands for RabbitMQ 4.3,
// as its documentation has it.
type peer struct {
	t        testing.TB
	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex
	ready    []*parcel
	conns    map[*peerConn]bool
	sent     []string // what clients settled, and their consumers
	together int      // the most consumers at a time
	strange  []string // what a client must not do
	deaf     bool     // methods are not answered any longer
	closed   bool
	added    int
}

// parcel is a message in the queue of a peer.
type parcel struct {
	seq                int
	body               string
	acquired, returned int64
	again              bool
}

// peerConn is a connection to a peer, with what its channel consumes.
type peerConn struct {
	p        *peer
	conn     net.Conn
	channel  uint16
	prefetch int
	tag      string // of the consumer, "" without one
	last     uint64 // delivery tag
	unacked  map[uint64]*parcel
}

func newPeer(t testing.TB, bodies ...[]byte) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, listener: l, conns: map[*peerConn]bool{}}
	for i, b := range bodies {
		p.ready = append(p.ready, &parcel{seq: i, body: string(b)})
	}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.cut()
		p.running.Wait()
		for _, s := range p.strange { // nobody is left who writes
			t.Error(s)
		}
	})
	return p
}

func (p *peer) url() string { return "amqp://guest:guest@" + p.listener.Addr().String() }

func (p *peer) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		c := &peerConn{p: p, conn: conn, unacked: map[uint64]*parcel{}}
		p.mu.Lock()
		p.conns[c] = true
		if p.closed {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.running.Go(func() {
			c.serve()
			_ = conn.Close()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.conns, c)
			c.tag = ""
			c.putBack(true)
			p.deliver()
		})
	}
}

// cut ends all connections as the death of a client would.
func (p *peer) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.conn.Close()
		c.tag = ""
		c.putBack(true)
	}
}

// most is how many consumers there were at a time.
func (p *peer) most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.together
}

// each calls do for what consumes.
func (p *peer) each(do func(*peerConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.tag != "" {
			do(c)
		}
	}
}

// cancelConsumers is what RabbitMQ 4.3 does to the consumer of a quorum queue that
// acknowledges too late, and any to those of a queue that is deleted.
func (p *peer) cancelConsumers() {
	p.each(func(c *peerConn) {
		tag := c.tag
		c.tag = ""
		c.method(c.channel, 60, 30, shortString(tag), []byte{1})
		c.putBack(true)
	})
}

// closeChannels closes the channels that consume.
func (p *peer) closeChannels(code uint16, reason string) {
	p.each(func(c *peerConn) {
		c.tag = ""
		c.method(c.channel, 20, 40, short(code), shortString(reason), short(60), short(80))
		c.putBack(true)
	})
}

// closeConnections says that the broker shuts down.
func (p *peer) closeConnections() {
	p.each(func(c *peerConn) {
		c.tag = ""
		c.putBack(true)
		c.method(0, 10, 50, short(320), shortString("CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"), short(0), short(0))
	})
}

// add puts messages behind the others, at once: "2 text" is one that came back twice.
func (p *peer) add(messages ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range messages {
		returned, body, _ := strings.Cut(m, " ")
		n, err := strconv.ParseInt(returned, 10, 64)
		if err != nil {
			p.strange = append(p.strange, err.Error())
		}
		p.added++
		p.ready = append(p.ready, &parcel{seq: 1000 + p.added, body: body, acquired: n, returned: n, again: n > 0})
	}
	p.deliver()
}

// ignore makes the peer answer no method any longer, or answer again.
func (p *peer) ignore(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = on
}

// log is what clients did so far.
func (p *peer) log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// left is how many messages are in the queue, delivered or not.
func (p *peer) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.ready)
	for c := range p.conns {
		n += len(c.unacked)
	}
	return n
}

// The rest is called with mu held, but for serve.

func (c *peerConn) serve() {
	in := bufio.NewReader(c.conn)
	hello := make([]byte, 8)
	if _, err := io.ReadFull(in, hello); err != nil || string(hello) != "AMQP\x00\x00\x09\x01" {
		return
	}
	c.locked(func() {
		c.method(0, 10, 10, []byte{0, 9}, longString("\x07versionS\x00\x00\x00\x054.3.0"), longString("PLAIN"), longString("en_US"))
	})
	for {
		head := make([]byte, 7)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if head[0] == 8 { // a heartbeat is answered by another
			c.locked(func() {
				if !c.p.deaf {
					c.frame(8, 0)
				}
			})
			continue
		}
		on := binary.BigEndian.Uint16(head[1:])
		class, method := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
		c.locked(func() {
			if !c.p.deaf {
				c.answer(on, class, method, body[4:len(body)-1])
				c.p.deliver()
			}
		})
	}
}

func (c *peerConn) locked(do func()) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	do()
}

// method sends one.
func (c *peerConn) method(channel, class, method uint16, args ...[]byte) {
	c.frame(1, channel, append([][]byte{short(class), short(method)}, args...)...)
}

func (c *peerConn) frame(kind byte, channel uint16, parts ...[]byte) {
	payload := bytes.Join(parts, nil)
	b := append([]byte{kind}, short(channel)...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	_, _ = c.conn.Write(append(append(b, payload...), 0xCE)) // some are gone
}

// answer does what a client asks for.
func (c *peerConn) answer(on, class, method uint16, args []byte) {
	switch [2]uint16{class, method} {
	case [2]uint16{10, 11}: // start-ok
		c.method(0, 10, 30, short(0), []byte{0, 2, 0, 0}, short(60))
	case [2]uint16{10, 40}:
		c.method(0, 10, 41, shortString(""))
	case [2]uint16{10, 50}:
		c.method(0, 10, 51)
	case [2]uint16{20, 10}:
		c.method(on, 20, 11, longString(""))
	case [2]uint16{20, 40}:
		c.putBack(true)
		c.tag = ""
		c.method(on, 20, 41)
	case [2]uint16{50, 10}:
		c.method(on, 50, 11, args[2:3+args[2]], make([]byte, 8))
	case [2]uint16{60, 10}:
		c.prefetch = int(binary.BigEndian.Uint16(args[4:]))
		if args[6] != 0 {
			c.p.strange = append(c.p.strange, "basic.qos is global, which RabbitMQ 4.3 refuses")
		}
		c.method(on, 60, 11)
	case [2]uint16{60, 20}:
		c.consume(on, args)
	case [2]uint16{60, 30}:
		tag := c.tag
		c.tag = ""
		c.p.sent = append(c.p.sent, "cancel")
		c.method(on, 60, 31, shortString(tag))
	case [2]uint16{60, 70}:
		c.get(on)
	case [2]uint16{60, 80}, [2]uint16{60, 90}, [2]uint16{60, 120}:
		c.settle(method, binary.BigEndian.Uint64(args), args[8])
	}
}

func (c *peerConn) consume(on uint16, args []byte) {
	queue := args[3 : 3+args[2]]
	tag := args[3+args[2]:]
	c.channel, c.tag = on, string(tag[1:1+tag[0]])
	c.p.sent = append(c.p.sent, fmt.Sprintf("consume %s %d", queue, c.prefetch))
	n := 0
	for other := range c.p.conns {
		if other.tag != "" {
			n++
		}
	}
	c.p.together = max(c.p.together, n)
	c.method(on, 60, 21, shortString(c.tag))
}

func (c *peerConn) get(on uint16) {
	if len(c.p.ready) == 0 {
		c.method(on, 60, 72, shortString(""))
		return
	}
	c.hand(on, 71)
}

// deliver gives consumers what they have room for.
func (p *peer) deliver() {
	for c := range p.conns {
		for c.tag != "" && len(c.unacked) < c.prefetch && len(p.ready) > 0 && !p.deaf {
			c.hand(c.channel, 60)
		}
	}
}

// hand delivers the first message, or is the answer to a get.
func (c *peerConn) hand(on, method uint16) {
	m := c.p.ready[0]
	c.p.ready = c.p.ready[1:]
	c.last++
	c.unacked[c.last] = m
	redelivered := byte(0)
	var table []byte
	if m.again {
		redelivered = 1
		table = append(count("x-acquired-count", m.acquired), count("x-delivery-count", m.returned)...)
	}
	tag := binary.BigEndian.AppendUint64(nil, c.last)
	where := slices.Concat([]byte{redelivered}, shortString(""), shortString("orders"))
	if method == 71 {
		c.method(on, 60, 71, tag, where, []byte{0, 0, 0, byte(len(c.p.ready))})
	} else {
		c.method(on, 60, 60, shortString(c.tag), tag, where)
	}
	const headers = 1 << 13
	size := binary.BigEndian.AppendUint64(nil, uint64(len(m.body)))
	c.frame(2, on, short(60), short(0), size, short(headers), longString(string(table)))
	c.frame(3, on, []byte(m.body))
}

// settle is an ack (80), reject (90) or nack (120).
func (c *peerConn) settle(method uint16, tag uint64, bits byte) {
	multiple := bits&1 == 1 && method != 90
	requeue := method == 90 && bits&1 == 1 || method == 120 && bits&2 == 2
	known := false
	for _, covered := range slices.Sorted(func(yield func(uint64) bool) {
		for n := range c.unacked {
			if (n == tag || multiple && n < tag) && !yield(n) {
				return
			}
		}
	}) {
		m := c.unacked[covered]
		known = known || covered == tag
		delete(c.unacked, covered)
		c.p.sent = append(c.p.sent, fmt.Sprintf("%s %s", map[uint16]string{80: "ack", 90: "reject", 120: "nack"}[method], m.body))
		if requeue {
			c.p.requeue(m, method == 90)
		}
	}
	if !known && c.tag != "" {
		c.p.strange = append(c.p.strange, fmt.Sprintf("delivery tag %d is unknown to the channel", tag))
	}
}

// putBack requeues all that the connection has.
func (c *peerConn) putBack(counted bool) {
	for _, m := range c.unacked {
		c.p.requeue(m, counted)
	}
	clear(c.unacked)
}

// requeue puts m in its place, and counts as RabbitMQ 4.3 does: a nack gives back
// what was not processed, and is no failed delivery.
func (p *peer) requeue(m *parcel, counted bool) {
	m.again = true
	m.acquired++
	if counted {
		m.returned++
	}
	i, _ := slices.BinarySearchFunc(p.ready, m, func(a, b *parcel) int { return a.seq - b.seq })
	p.ready = slices.Insert(p.ready, i, m)
}

func short(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

func shortString(s string) []byte { return append([]byte{byte(len(s))}, s...) }

func longString(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

// count is an entry of a table.
func count(key string, n int64) []byte {
	return binary.BigEndian.AppendUint64(append(shortString(key), 'l'), uint64(n))
}
