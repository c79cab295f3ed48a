package rabbitmq

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"time"
)

// relay stands between a client and its broker, passes on what either says, and looks at it afterwards: which deliveries have been
// acknowledged, and when the frame that says so came by. So all systems are measured alike, whatever gathers in them before they write.
type relay struct {
	broker string
	settle func(number uint64, now time.Time)
	gate   net.Listener

	mu    sync.Mutex // protects following fields
	conns []net.Conn
	over  bool
}

// through runs f with a URL that leads to the broker of target by a relay.
func through(ctx context.Context, target string, settle func(uint64, time.Time), f func(ctx context.Context, url string) error) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	gate, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := &relay{broker: u.Host, settle: settle, gate: gate}
	u.Host = gate.Addr().String()
	var serving sync.WaitGroup
	serving.Go(r.serve)
	err = f(ctx, u.String())
	r.close()
	serving.Wait()
	return err
}

// serve takes connections until the relay is closed.
func (r *relay) serve() {
	var pumps sync.WaitGroup
	defer pumps.Wait()
	for {
		client, err := r.gate.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", r.broker)
		if err != nil {
			_ = client.Close() // which tells the client
			continue
		}
		if !r.keep(client, broker) {
			return
		}
		w := &wire{settle: r.settle, channels: map[uint16]*tags{}}
		requests, answers := &framer{skip: greeting}, &framer{}
		pumps.Go(func() {
			pump(client, broker, nil, func(b []byte, now time.Time) { requests.feed(b, w.fromClient(now)) })
		})
		// A client can acknowledge what it has been handed at once: a delivery is noted first.
		pumps.Go(func() { pump(broker, client, func(b []byte) { answers.feed(b, w.fromBroker) }, nil) })
	}
}

// keep remembers what close has to close, and says whether it is still to come.
func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.conns = append(r.conns, conns...)
		return true
	}
	for _, c := range conns {
		_ = c.Close()
	}
	return false
}

func (r *relay) close() {
	_ = r.gate.Close() // ends serve
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for _, c := range r.conns {
		_ = c.Close() // ends its pumps; most are closed already
	}
}

// pump passes on what from says, and shows it before, or afterwards with the time at which it came. When from has ended, or to does not
// listen, it ends both.
func pump(from, to net.Conn, before func([]byte), after func([]byte, time.Time)) {
	defer func() { _ = errors.Join(from.Close(), to.Close()) }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		now := time.Now()
		if before != nil {
			before(buffer[:n])
		}
		_, failed := to.Write(buffer[:n])
		if after != nil {
			after(buffer[:n], now)
		}
		if err != nil || failed != nil { // one of the two has closed
			return
		}
	}
}

// wire is one connection: what was delivered on its channels, and is not acknowledged.
type wire struct {
	settle func(number uint64, now time.Time)

	mu       sync.Mutex // protects following field
	channels map[uint16]*tags
}

// of is what is known of a channel. It is called with mu held.
func (w *wire) of(channel uint16) *tags {
	t := w.channels[channel]
	if t == nil {
		t = &tags{}
		w.channels[channel] = t
	}
	return t
}

// fromBroker notes deliveries.
func (w *wire) fromBroker(kind byte, channel uint16, payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch kind {
	case frameMethod:
		if tag, ok := delivered(method(payload)); ok {
			w.of(channel).next = tag
		}
	case frameBody:
		w.of(channel).deliver(payload)
	}
}

// fromClient settles what is acknowledged.
func (w *wire) fromClient(now time.Time) func(kind byte, channel uint16, payload []byte) {
	return func(kind byte, channel uint16, payload []byte) {
		number, arguments := method(payload)
		if kind != frameMethod || number != methodAck {
			return
		}
		tag, multiple, ok := acked(arguments)
		if !ok {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.of(channel).ack(tag, multiple, func(number uint64) { w.settle(number, now) })
	}
}
