// Package tlstest tries what a client does about servers whose TLS is wrong. Both producers
// are held to the same: each way is an error, nothing falls back to a plain connection, and
// no byte of the password leaves the process before the server is verified.
package tlstest

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// Canary is the password of each [Attempt].
const Canary = "canary-7f3a91"

// Attempt connects once to addr, with [Canary] as the password and log as the logger, and
// disconnects. Without a cfg it speaks no TLS.
type Attempt func(t *testing.T, addr net.Addr, cfg *tls.Config, log *slog.Logger) error

// scene is a server, nil for one without TLS, and what the client does.
type scene struct {
	server *tls.Config
	plain  bool // the client speaks no TLS
}

// scenes are the ways in which TLS can be wrong, for clients that trust a.
func scenes(t *testing.T, a authority) map[string]scene {
	t.Helper()
	stranger, clients := newAuthority(t), x509.NewCertPool()
	clients.AddCert(a.cert)
	good := a.sign(t, "server.test", -time.Hour, time.Hour)
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	return map[string]scene{
		"an unknown authority":    {server: with(stranger.sign(t, "server.test", -time.Hour, time.Hour))},
		"expired":                 {server: with(a.sign(t, "server.test", -2*time.Hour, -time.Hour))},
		"not valid yet":           {server: with(a.sign(t, "server.test", time.Hour, 2*time.Hour))},
		"another name":            {server: with(a.sign(t, "other.test", -time.Hour, time.Hour))},
		"TLS 1.1":                 {server: &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}},
		"no client certificate":   {server: &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}},
		"a plain server":          {},
		"a plain client of a TLS": {server: with(good), plain: true},
	}
}

// NoCredentials fails the test unless, of each server whose TLS is wrong, attempt returns an
// error, and neither the server nor the log nor the error has seen the password.
func NoCredentials(t *testing.T, attempt Attempt) {
	t.Helper()
	a, trust := newAuthority(t), x509.NewCertPool()
	trust.AddCert(a.cert)
	for name, step := range scenes(t, a) {
		t.Run(name, func(t *testing.T) {
			p := &pretender{}
			addr := p.listen(t, step.server)
			cfg := &tls.Config{RootCAs: trust, ServerName: "server.test"}
			if step.plain {
				cfg = nil
			}
			var logged strings.Builder
			err := attempt(t, addr, cfg, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
			p.mu.Lock()
			defer p.mu.Unlock()
			if err == nil || p.conns == 0 {
				t.Fatalf("it connected, or never tried: %v, %d", err, p.conns)
			}
			for where, text := range map[string]string{"the wire": p.raw.String(), "what was sent": p.opened.String(), "the log": logged.String(), "the error": err.Error()} {
				if strings.Contains(text, Canary) {
					t.Errorf("the password is in %s", where)
				}
			}
		})
	}
}

// Silent is a server without TLS that answers nothing, until the test ends.
func Silent(t *testing.T) net.Addr {
	t.Helper()
	return (&pretender{}).listen(t, nil)
}

// Versions fails the test unless validate reports a config that allows versions before
// TLS 1.2, and attempt warns of one that verifies nobody.
func Versions(t *testing.T, validate func(*tls.Config) error, attempt Attempt) {
	t.Helper()
	for _, cfg := range []*tls.Config{{MinVersion: tls.VersionTLS10}, {MaxVersion: tls.VersionTLS11}} {
		if err := validate(cfg); err == nil || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("Validate: %v", err)
		}
	}
	var logged strings.Builder
	_ = attempt(t, Silent(t), &tls.Config{InsecureSkipVerify: true}, slog.New(slog.NewTextHandler(&logged, nil)))
	if !strings.Contains(logged.String(), "level=WARN") || !strings.Contains(logged.String(), "not verified") {
		t.Errorf("no warning: %s", logged.String())
	}
}
