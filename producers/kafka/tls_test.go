package kafka_test

import (
	"crypto/tls"
	"log/slog"
	"net"
	"testing"

	"github.com/gobroadway/gobroadway/internal/tlstest"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

const canary = tlstest.Canary

// TestNoCredentialsBeforeTheServerIsVerified: each way in which TLS can be wrong is
// an error, nothing falls back to a plain connection, and the server has seen no
// byte of the password.
func TestNoCredentialsBeforeTheServerIsVerified(t *testing.T) { tlstest.NoCredentials(t, connectTo) }

// connectTo makes one attempt to connect, with the canary as the password.
func connectTo(t *testing.T, addr net.Addr, cfg *tls.Config, log *slog.Logger) error {
	t.Helper()
	p := kafka.NewProducer(kafka.Config{
		Brokers: []string{addr.String()}, Topics: []string{"t"}, Group: "g", TLS: cfg, Logger: log,
		SASL: &kafka.SASL{Mechanism: kafka.Plain, Credentials: kafka.StaticCredentials("user", canary)},
	})
	err := p.Connect(t.Context())
	_ = p.Close()
	return err
}

// TestTLSIsNotOlderThan12: a Config that allows older versions is a mistake, and
// one that verifies nobody is warned of.
func TestTLSIsNotOlderThan12(t *testing.T) {
	tlstest.Versions(t, func(cfg *tls.Config) error {
		return kafka.NewProducer(kafka.Config{Brokers: []string{"127.0.0.1:1"}, Topics: []string{"t"}, Group: "g", TLS: cfg}).Validate()
	}, connectTo)
}
