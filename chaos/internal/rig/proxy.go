package rig

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// A Conn is one connection of a client through a [Proxy].
type Conn struct {
	// ID counts connections of a proxy from 1.
	ID int
	// Client is what the client calls itself (Kafka's client id, AMQP's connection name); "" until it has.
	Client string
}

// A Tap sees what goes over one connection, in both directions, before it is carried on: what it does before it returns is done
// before the other side gets the bytes. up is the way from client to broker. It is called by two goroutines, one per direction.
type Tap func(up bool, data []byte)

// Opener makes the tap of a new connection, or nil for none. closed is called once nothing more comes.
type Opener func(conn func() Conn) (tap Tap, closed func())

// Proxy carries connections to a broker: a tap in front, and behind it toxiproxy, whose toxics spoil what it carries.
//
//	client ── tap ── toxics ── broker
type Proxy struct {
	listener net.Listener
	toxi     *toxiproxy.Proxy
	serving  sync.WaitGroup
	identify func(first []byte) string

	mu     sync.Mutex
	open   Opener
	last   int
	dials  int
	links  map[*link]bool
	denied func(client string) bool
	refuse bool // all new connections
}

// link is one connection, its two sides, and who is behind it.
type link struct {
	id     int
	mu     sync.Mutex
	client string
	sides  [2]net.Conn
}

func (l *link) conn() Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Conn{ID: l.id, Client: l.client}
}

// cut breaks both sides with a reset, as a broken network does. An orderly end would be a message too.
func (l *link) cut() {
	for _, side := range l.sides {
		if tcp, ok := side.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it may be closed already, which is what is wanted
		}
		_ = side.Close()
	}
}

// Identify functions find out from a client's first bytes who it is.
var _ = []func([]byte) string{kafkaClient, amqpClient}

// kafkaClient reads the client id in the header of a Kafka request.
func kafkaClient(first []byte) string {
	const at = 12 // size, api key, version, correlation id
	if len(first) < at+2 {
		return ""
	}
	n := int(int16(binary.BigEndian.Uint16(first[at:])))
	if n <= 0 || len(first) < at+2+n {
		return ""
	}
	return string(first[at+2 : at+2+n])
}

// amqpClient finds connection_name among the client properties of AMQP's start-ok.
func amqpClient(first []byte) string {
	_, rest, found := bytes.Cut(first, []byte("connection_nameS"))
	if !found || len(rest) < 4 {
		return ""
	}
	n := int(binary.BigEndian.Uint32(rest))
	if len(rest)-4 < n {
		return ""
	}
	return string(rest[4 : 4+n])
}

// newProxy listens on a free loopback port. It refuses connections until serve.
func newProxy(identify func([]byte) string) (*Proxy, error) {
	listener, err := listenLow()
	if err != nil {
		return nil, err
	}
	return &Proxy{listener: listener, identify: identify, links: make(map[*link]bool), denied: func(string) bool { return false }}, nil
}

// listenLow listens on a loopback port below those that systems give to outgoing connections: a client that dials a dead port of
// that range can be connected to itself.
func listenLow() (net.Listener, error) {
	for port := 25100; port < 31000; port += 7 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return listener, nil
		}
	}
	return nil, errors.New("no free loopback port between 25100 and 31000")
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// serve carries connections to upstream until close.
func (p *Proxy) serve(upstream string) error {
	registerToxics()
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics log by the global logger
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p.toxi = toxiproxy.NewProxy(server, "rig", "127.0.0.1:0", upstream)
	if err := p.toxi.Start(); err != nil {
		return err
	}
	p.serving.Go(p.accept)
	return nil
}

// close ends every connection and returns when all is quiet.
func (p *Proxy) close() error {
	err := p.listener.Close()
	p.Refuse(true)
	p.CutAll()
	p.serving.Wait()
	if p.toxi != nil {
		p.toxi.Stop()
	}
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.serving.Go(func() { p.carry(client) })
		}
	}
}

// carry connects a client with toxiproxy and copies both ways until either side ends.
func (p *Proxy) carry(client net.Conn) {
	broker, err := net.Dial("tcp", p.toxi.Listen)
	if err != nil {
		_ = client.Close() // toxiproxy is stopping: the rig ends
		return
	}
	l := &link{sides: [2]net.Conn{client, broker}}
	tap, closed, ok := p.keep(l)
	defer p.drop(l)
	if !ok {
		l.cut()
		return
	}
	defer closed()
	var back sync.WaitGroup
	back.Go(func() {
		pump(client, broker, func(data []byte) bool { tap(false, data); return true })
		_ = client.Close()
	})
	pump(broker, client, func(data []byte) bool {
		if !p.allow(l, data) {
			return false
		}
		tap(true, data)
		return true
	})
	_ = broker.Close()
	back.Wait()
}

// pump copies from one side to the other, each piece after see has seen and allowed it.
func pump(to, from net.Conn, see func([]byte) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !see(buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// allow learns who the client is, and cuts the link of one that is denied.
func (p *Proxy) allow(l *link, data []byte) bool {
	l.mu.Lock()
	if l.client == "" {
		l.client = p.identify(data)
	}
	client := l.client
	l.mu.Unlock()
	p.mu.Lock()
	denied := p.denied
	p.mu.Unlock()
	if client != "" && denied(client) {
		l.cut()
		return false
	}
	return true
}

// keep opens the tap of a new link, unless links are refused.
func (p *Proxy) keep(l *link) (Tap, func(), bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials++
	if p.refuse {
		return nil, nil, false
	}
	p.last++
	l.id = p.last
	p.links[l] = true
	if p.open != nil {
		if tap, closed := p.open(l.conn); tap != nil {
			return tap, closed, true
		}
	}
	return func(bool, []byte) {}, func() {}, true
}

func (p *Proxy) drop(l *link) {
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	for _, side := range l.sides {
		_ = side.Close() // twice does nothing
	}
}

// Tap makes open the opener of taps for connections from now on.
func (p *Proxy) Tap(open Opener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = open
}

// CutAll resets every connection. New ones are accepted.
func (p *Proxy) CutAll() int { return p.cut(func(string) bool { return true }) }

// CutClient resets the connections of the clients that who matches, and returns how many there were.
func (p *Proxy) CutClient(who func(client string) bool) int { return p.cut(who) }

func (p *Proxy) cut(who func(string) bool) int {
	p.mu.Lock()
	var links []*link
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	n := 0
	for _, l := range links {
		if who(l.conn().Client) {
			l.cut()
			n++
		}
	}
	return n
}

// Refuse makes new connections be reset, or accepted again.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// Deny cuts every client that who matches as soon as it says who it is, and again whenever it sends anything: until another Deny it is off
// the network.
func (p *Proxy) Deny(who func(client string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.denied = who
}

// Open counts the connections that are open.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Dials counts the connections that were ever tried.
func (p *Proxy) Dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

// A Toxic spoils one direction of all connections, those that are open included.
type Toxic struct {
	// Type is one of toxiproxy's own ("latency", "bandwidth", "timeout", …) or of this package's: see toxics.go.
	Type string
	// Up spoils what goes to the broker, otherwise what comes from it.
	Up bool
	// Attributes are the toxic's settings.
	Attributes map[string]any
}

func (t Toxic) stream() string {
	if t.Up {
		return "upstream"
	}
	return "downstream"
}

// Add adds a toxic and returns what removes it again.
func (p *Proxy) Add(t Toxic) (remove func() error, err error) {
	attributes := t.Attributes
	if attributes == nil {
		attributes = map[string]any{}
	}
	name := t.Type + "_" + t.stream()
	text, err := json.Marshal(map[string]any{
		"name": name, "type": t.Type, "stream": t.stream(), "toxicity": 1, "attributes": attributes,
	})
	if err != nil {
		return nil, err
	}
	if _, err := p.toxi.Toxics.AddToxicJson(bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("toxic %s: %w", name, err)
	}
	return func() error { return p.toxi.Toxics.RemoveToxic(zerolog.Nop().WithContext(context.Background()), name) }, nil
}
