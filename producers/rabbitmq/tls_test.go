package rabbitmq_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

const canary = "canary-7f3a91"

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

// TestNoCredentialsBeforeTheServerIsVerified: each way in which TLS can be wrong is
// an error, nothing falls back to a plain connection, and the server has seen no
// byte of the password.
func TestNoCredentialsBeforeTheServerIsVerified(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	trust, clients := x509.NewCertPool(), x509.NewCertPool()
	trust.AddCert(a.cert)
	clients.AddCert(a.cert)
	good := a.sign(t, "server.test", -time.Hour, time.Hour)
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	for name, step := range map[string]struct {
		server *tls.Config
		plain  bool // the client speaks no TLS
	}{
		"an unknown authority":    {server: with(stranger.sign(t, "server.test", -time.Hour, time.Hour))},
		"expired":                 {server: with(a.sign(t, "server.test", -2*time.Hour, -time.Hour))},
		"not valid yet":           {server: with(a.sign(t, "server.test", time.Hour, 2*time.Hour))},
		"another name":            {server: with(a.sign(t, "other.test", -time.Hour, time.Hour))},
		"TLS 1.1":                 {server: &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}},
		"no client certificate":   {server: &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}},
		"a plain server":          {},
		"a plain client of a TLS": {server: with(good), plain: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pretender{}
			addr := p.listen(t, step.server)
			cfg := &tls.Config{RootCAs: trust, ServerName: "server.test"}
			if step.plain {
				cfg = nil
			}
			var logged strings.Builder
			err := connectTo(t, addr, cfg, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
			p.mu.Lock()
			defer p.mu.Unlock()
			if err == nil || p.conns == 0 {
				t.Errorf("it connected, or never tried: %v, %d", err, p.conns)
			}
			for where, text := range map[string]string{"the wire": p.raw.String(), "what was sent": p.opened.String(), "the log": logged.String(), "the error": errText(err)} {
				if strings.Contains(text, canary) {
					t.Errorf("the password is in %s", where)
				}
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// connectTo makes one attempt to consume, with the canary as the password.
func connectTo(t *testing.T, addr net.Addr, cfg *tls.Config, log *slog.Logger) error {
	t.Helper()
	p := rabbitmq.NewProducer(rabbitmq.Config{
		Host: "127.0.0.1", Port: addr.(*net.TCPAddr).Port, Queue: "q", TLS: cfg, Logger: log,
		Credentials: rabbitmq.Password("user", canary), DialTimeout: 5 * time.Second,
	})
	err := p.Connect(t.Context())
	_ = p.Close()
	return err
}

// TestTLSIsNotOlderThan12: a Config that allows older versions is a mistake, and
// one that verifies nobody is warned of.
func TestTLSIsNotOlderThan12(t *testing.T) {
	for _, cfg := range []*tls.Config{{MinVersion: tls.VersionTLS10}, {MaxVersion: tls.VersionTLS11}} {
		if err := rabbitmq.NewProducer(rabbitmq.Config{Queue: "q", TLS: cfg}).Validate(); err == nil || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("Validate: %v", err)
		}
	}
	var logged strings.Builder
	addr := (&pretender{}).listen(t, nil)
	_ = connectTo(t, addr, &tls.Config{InsecureSkipVerify: true}, slog.New(slog.NewTextHandler(&logged, nil)))
	if !strings.Contains(logged.String(), "level=WARN") || !strings.Contains(logged.String(), "not verified") {
		t.Errorf("no warning: %s", logged.String())
	}
}
