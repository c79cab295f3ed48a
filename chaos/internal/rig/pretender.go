package rig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"sync"
	"time"
)

// Pretender is a server that stands where a broker should, and remembers all that it is sent: as it came, and as it was under TLS.
type Pretender struct {
	listener net.Listener
	config   *tls.Config
	answer   func(heard []byte) []byte
	serving  sync.WaitGroup

	mu          sync.Mutex
	raw, opened bytes.Buffer
	conns       int
	handshakes  int
}

// overheard is a connection whose reads are remembered.
type overheard struct {
	net.Conn
	p *Pretender
}

func (o overheard) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	o.p.raw.Write(b[:n])
	return n, err
}

// Pretend listens on a free loopback port. Without a config it speaks no TLS. answer is what it says to each piece that it hears, after
// the handshake where there is one: [AskAMQP] and [AskKafka] lead clients on to log in.
func Pretend(config *tls.Config, answer func(heard []byte) []byte) (*Pretender, error) {
	listener, err := listenLow()
	if err != nil {
		return nil, err
	}
	p := &Pretender{listener: listener, config: config, answer: answer}
	p.serving.Go(p.accept)
	return p, nil
}

// Addr is where it listens.
func (p *Pretender) Addr() string { return p.listener.Addr().String() }

// Close ends it, and returns when its connections have ended.
func (p *Pretender) Close() error {
	err := p.listener.Close()
	p.serving.Wait()
	return err
}

// Heard is all that came, how many connections there were, and in how many of them a handshake was completed.
func (p *Pretender) Heard() (text []byte, conns, handshakes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(bytes.Clone(p.raw.Bytes()), p.opened.Bytes()...), p.conns, p.handshakes
}

func (p *Pretender) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.serving.Go(func() { p.serve(overheard{conn, p}) })
	}
}

// serve hears one client out, until it has said nothing for a while.
func (p *Pretender) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	p.mu.Lock()
	p.conns++
	p.mu.Unlock()
	const patience = time.Second
	if conn.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}
	if p.config != nil {
		secure := tls.Server(conn, p.config)
		if secure.Handshake() != nil {
			_, _ = io.Copy(io.Discard, conn) // what a client says to whoever it did not verify
			return
		}
		p.mu.Lock()
		p.handshakes++
		p.mu.Unlock()
		conn = secure
	}
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		p.mu.Lock()
		p.opened.Write(buffer[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := conn.Write(p.answer(buffer[:n])); err != nil {
			return
		}
	}
}

// AskAMQP answers the header of AMQP 0-9-1 as a broker does, by asking the client to log in (connection.start).
func AskAMQP(heard []byte) []byte {
	if !bytes.HasPrefix(heard, []byte("AMQP")) {
		return nil
	}
	const start = "\x00\x0a\x00\x0a" + "\x00\x09" + "\x00\x00\x00\x00" + "\x00\x00\x00\x05PLAIN" + "\x00\x00\x00\x05en_US"
	return append(binary.BigEndian.AppendUint32([]byte{1, 0, 0}, uint32(len(start))), start+"\xce"...)
}

// AskKafka answers requests for the versions of the protocol and for SASL's mechanisms, so that the client sends its password next.
func AskKafka(heard []byte) []byte {
	const saslHandshake, apiVersions, saslAuthenticate = 17, 18, 36
	if len(heard) < 12 {
		return nil
	}
	answer := append(make([]byte, 4), heard[8:12]...) // the size, and the correlation id
	switch binary.BigEndian.Uint16(heard[4:]) {
	case apiVersions:
		answer = append(answer, 0, 0, 0, 0, 0, 3)
		for _, key := range []byte{saslHandshake, apiVersions, saslAuthenticate} {
			answer = append(answer, 0, key, 0, 0, 0, 1)
		}
	case saslHandshake:
		answer = append(answer, "\x00\x00\x00\x00\x00\x01\x00\x05PLAIN"...)
	default:
		return nil
	}
	binary.BigEndian.PutUint32(answer, uint32(len(answer)-4))
	return answer
}

// Authority signs certificates of servers.
type Authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewAuthority makes one that nobody trusts yet.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{key, cert}, err
}

// Pool trusts the authority, and nobody else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Sign makes the certificate of a server called name, valid between two times from now.
func (a *Authority) Sign(name string, from, to time.Duration) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
