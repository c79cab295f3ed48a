package rig

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Door is an address that leads to a broker once it is open. Before, nobody listens there; or somebody does who never answers.
type Door struct {
	addr, upstream string
	serving        sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener
	opened   chan struct{}
	dials    int
	conns    []net.Conn
}

// NewDoor chooses an address, where nobody listens yet: below the ports that systems give to outgoing connections, and at random, as
// doors that are not open do not keep theirs.
func NewDoor(upstream string) (*Door, error) {
	const first, ports, tries = 31_000, 1_700, 50
	for range tries {
		free, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports)))
		if err == nil {
			return &Door{addr: free.Addr().String(), upstream: upstream, opened: make(chan struct{})}, free.Close()
		}
	}
	return nil, errors.New("no free loopback port for a door")
}

// Addr is where it is.
func (d *Door) Addr() string { return d.addr }

// Listen accepts connections, and answers none of them before Open.
func (d *Door) Listen() error {
	listener, err := net.Listen("tcp", d.addr)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.listener = listener
	d.mu.Unlock()
	d.serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			d.serving.Go(func() { d.carry(client) })
		}
	})
	return nil
}

// Open lets everybody through who waits, and who comes.
func (d *Door) Open() { close(d.opened) }

// Dials counts connections that were accepted.
func (d *Door) Dials() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dials
}

// Close ends everything.
func (d *Door) Close() error {
	d.mu.Lock()
	var err error
	if d.listener != nil {
		err = d.listener.Close()
	}
	select {
	case <-d.opened:
	default:
		close(d.opened)
	}
	conns := d.conns
	d.mu.Unlock()
	for _, conn := range conns {
		if e := conn.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	d.serving.Wait()
	return err
}

func (d *Door) carry(client net.Conn) {
	d.mu.Lock()
	d.dials++
	d.conns = append(d.conns, client)
	d.mu.Unlock()
	defer client.Close()
	<-d.opened
	broker, err := net.Dial("tcp", d.upstream)
	if err != nil {
		return
	}
	d.mu.Lock()
	d.conns = append(d.conns, broker)
	d.mu.Unlock()
	all := func([]byte) bool { return true }
	var back sync.WaitGroup
	back.Go(func() {
		pump(client, broker, all)
		_ = client.Close()
	})
	pump(broker, client, all)
	_ = broker.Close()
	back.Wait()
}
