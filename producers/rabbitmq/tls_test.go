package rabbitmq_test

import (
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/internal/tlstest"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

const canary = tlstest.Canary

// TestNoCredentialsBeforeTheServerIsVerified: each way in which TLS can be wrong is
// an error, nothing falls back to a plain connection, and the server has seen no
// byte of the password.
func TestNoCredentialsBeforeTheServerIsVerified(t *testing.T) { tlstest.NoCredentials(t, connectTo) }

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
	tlstest.Versions(t, func(cfg *tls.Config) error {
		return rabbitmq.NewProducer(rabbitmq.Config{Queue: "q", TLS: cfg}).Validate()
	}, connectTo)
}
