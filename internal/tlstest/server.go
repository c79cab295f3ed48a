package tlstest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// pretender is a server that answers nothing, and remembers what it was sent: as
// it came, and as it was after the handshake.
type pretender struct {
	mu     sync.Mutex
	raw    bytes.Buffer
	opened bytes.Buffer
	conns  int
}

// overheard is a connection whose reads are remembered.
type overheard struct {
	net.Conn
	p *pretender
}

func (o overheard) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	o.p.raw.Write(b[:n])
	return n, err
}

// listen serves until the test ends; without a config it speaks no TLS.
func (p *pretender) listen(t *testing.T, cfg *tls.Config) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(overheard{c, p}, cfg) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr()
}

func (p *pretender) serve(c net.Conn, cfg *tls.Config) {
	defer func() { _ = c.Close() }()
	p.mu.Lock()
	p.conns++
	p.mu.Unlock()
	if cfg != nil {
		secure := tls.Server(c, cfg)
		if secure.Handshake() != nil {
			return
		}
		c = secure
	}
	b := make([]byte, 4096)
	n, _ := io.ReadAtLeast(c, b, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened.Write(b[:n])
}

// authority signs a certificate for name that is valid between two times.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert}
}

func (a authority) sign(t *testing.T, name string, from, to time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if name != "server.test" {
		template.IPAddresses = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
