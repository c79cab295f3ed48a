package brokers

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
)

// proxy carries connections between a loopback port and a broker, until it is cut.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// newProxy listens on a free port. What target is must be told to start.
func newProxy() (*proxy, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])))
	if err != nil {
		return nil, err
	}
	return &proxy{listener: listener, conns: make(map[net.Conn]bool)}, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// start carries connections to target until t ends.
func (p *proxy) start(t testing.TB, target string) {
	p.target = target
	var serving sync.WaitGroup
	serving.Go(p.serve)
	t.Cleanup(func() {
		if err := p.listener.Close(); err != nil {
			t.Logf("brokers: close the proxy: %v", err)
		}
		p.setCut(true)
		serving.Wait()
	})
}

func (p *proxy) serve() {
	var carrying sync.WaitGroup
	defer carrying.Wait()
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			carrying.Go(func() { p.carry(client) })
		}
	}
}

// carry connects client with the target and copies both ways until either side ends.
func (p *proxy) carry(client net.Conn) {
	defer p.drop(client)
	if !p.keep(client) {
		return
	}
	broker, err := net.Dial("tcp", p.target)
	if err != nil {
		return // the broker is down: so is its proxy
	}
	defer p.drop(broker)
	if !p.keep(broker) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, broker) // an end is an end, whichever way
		p.drop(client)
	})
	_, _ = io.Copy(broker, client)
	p.drop(broker)
	back.Wait()
}

// keep remembers a connection for the next cut, and refuses it while cut.
func (p *proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	p.conns[conn] = true
	return true
}

// drop closes a connection with a reset, as a broken network would, not with an orderly end. Closing twice does nothing.
func (p *proxy) drop(conn net.Conn) {
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// setCut resets all connections and refuses new ones, or accepts them again.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	p.cut = cut
	var broken []net.Conn
	if cut {
		for conn := range p.conns {
			broken = append(broken, conn)
		}
	}
	p.mu.Unlock()
	for _, conn := range broken {
		p.drop(conn)
	}
}
