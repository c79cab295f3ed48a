package rabbitmq_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// wire stands between a client and a broker: it tells what the client sends, and
// can break.
type wire struct {
	t        testing.TB
	url      string
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	sent   []string
	inward []*gate // to the clients
	socks  []net.Conn
	muted  chan struct{} // while not nil, nothing is forwarded until it is closed
	dialed int
	closed bool
}

// newWire listens on a port of its own and forwards to the broker at address.
func newWire(t testing.TB, address string) *wire {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the broker's address is no URL")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, target: u.Host, listener: l}
	u.Host = l.Addr().String()
	w.url = u.String()
	w.running.Go(w.accept)
	t.Cleanup(w.end)
	return w
}

// end breaks the wire for good.
func (w *wire) end() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.mute(false)
	_ = w.listener.Close()
	w.cut()
	w.running.Wait()
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.dialed++
		w.socks = append(w.socks, client, server)
		closed := w.closed
		w.mu.Unlock()
		if closed {
			w.cut()
		}
		inward := &gate{w: w, to: client}
		w.mu.Lock()
		w.inward = append(w.inward, inward)
		w.mu.Unlock()
		w.running.Go(func() {
			defer server.Close()
			hello := make([]byte, 8)
			out := &gate{w: w, to: server}
			if _, err := io.ReadFull(client, hello); err == nil && out.write(hello) == nil {
				w.frames(client, out, w.note)
			}
		})
		w.running.Go(func() {
			defer client.Close()
			w.frames(server, inward, func([]byte) {})
		})
	}
}

// gate forwards frames unless the wire is muted.
type gate struct {
	w  *wire
	mu sync.Mutex
	to io.Writer
}

func (g *gate) write(frame []byte) error {
	g.w.mu.Lock()
	muted := g.w.muted
	g.w.mu.Unlock()
	if muted != nil {
		<-muted
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := g.to.Write(frame)
	return err
}

// frames forwards frames, and shows those that are methods to note.
func (w *wire) frames(from io.Reader, to *gate, note func(body []byte)) {
	in := bufio.NewReader(from)
	for {
		head := make([]byte, 7)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		const method = 1
		if head[0] == method {
			note(body)
		}
		if to.write(slices.Concat(head, body)) != nil {
			return
		}
	}
}

// tell sends a method to the clients, as if the broker had. Channel 0 is the
// connection.
func (w *wire) tell(channel byte, class, method uint16, args ...byte) {
	body := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, class), method)
	body = append(body, args...)
	frame := binary.BigEndian.AppendUint32([]byte{1, 0, channel}, uint32(len(body)))
	frame = append(append(frame, body...), 0xCE)
	w.mu.Lock()
	clients := slices.Clone(w.inward)
	w.mu.Unlock()
	for _, c := range clients {
		_ = c.write(frame) // some are gone
	}
}

func (w *wire) note(body []byte) {
	class, method, args := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]), body[4:]
	var text string
	switch [2]uint16{class, method} {
	case [2]uint16{60, 10}:
		text = fmt.Sprintf("qos %d global %d", binary.BigEndian.Uint16(args[4:]), args[6]&1)
	case [2]uint16{60, 20}:
		text = "consume"
	case [2]uint16{60, 30}:
		text = "cancel"
	case [2]uint16{60, 80}:
		text = fmt.Sprintf("ack %s", tags(args, args[8]&1))
	case [2]uint16{60, 90}:
		text = fmt.Sprintf("reject %s requeue %d", tags(args, 0), args[8]&1)
	case [2]uint16{60, 120}:
		text = fmt.Sprintf("nack %s requeue %d", tags(args, args[8]&1), args[8]>>1&1)
	case [2]uint16{20, 40}:
		text = "channel.close"
	default:
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, text)
}

func tags(args []byte, multiple byte) string {
	tag := binary.BigEndian.Uint64(args)
	if multiple == 1 {
		return fmt.Sprintf("<=%d", tag)
	}
	return fmt.Sprint(tag)
}

// methods is what the client has sent, of what begins with one of prefixes.
func (w *wire) methods(prefixes ...string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.sent), func(s string) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
	})
}

// settles is what the client has settled.
func (w *wire) settles() []string { return w.methods("ack", "reject", "nack") }

// wantSettles waits until exactly want was settled.
func (w *wire) wantSettles(want ...string) {
	w.t.Helper()
	if !poll(func() bool { return len(w.settles()) >= len(want) }) || !slices.Equal(w.settles(), want) {
		w.t.Errorf("on the wire: %q, want %q", w.settles(), want)
	}
}

// connections is how many were made.
func (w *wire) connections() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed
}

// cut breaks all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.socks {
		_ = s.Close()
	}
	w.socks = nil
}

// mute stops all forwarding, without breaking a connection, or goes on.
func (w *wire) mute(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case on && w.muted == nil:
		w.muted = make(chan struct{})
	case !on && w.muted != nil:
		close(w.muted)
		w.muted = nil
	}
}
