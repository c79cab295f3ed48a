package kafka_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

func bearer(context.Context) (kafka.Credentials, error) {
	return kafka.Credentials{Token: kafka.Secret(brokers.UnsecuredToken("broadway"))}, nil
}

func TestAuthenticatesByEveryMechanism(t *testing.T) {
	b := brokers.Kafka(t)
	addr, user, password := b.SASL(t)
	static := kafka.StaticCredentials(user, kafka.Secret(password))
	for mechanism, credentials := range map[kafka.Mechanism]func(context.Context) (kafka.Credentials, error){
		kafka.Plain: static, kafka.ScramSHA256: static, kafka.ScramSHA512: static, kafka.OAuthBearer: bearer,
	} {
		t.Run(string(mechanism), func(t *testing.T) {
			sasl := &kafka.SASL{Mechanism: mechanism, Credentials: credentials}
			topic := b.Topic(t, 2)
			p := publisher(t, kafka.PublisherConfig{Brokers: []string{addr}, Topic: topic, SASL: sasl})
			if err := p.Publish(t.Context(), broadway.Record{Payload: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			cfg := config(t, b, topic)
			cfg.Brokers, cfg.SASL = []string{addr}, sasl
			consumes(t, cfg, 1)
		})
	}
}

// consumes runs a pipeline until it has seen n distinct payloads.
func consumes(t *testing.T, cfg kafka.Config, n int) {
	t.Helper()
	out := newSink()
	r := run(t, broadway.Config{
		Producers: []broadway.Producer{kafka.NewProducer(cfg)},
		Processor: broadway.ProcessorConfig{Handler: out.handle},
		Failure:   broadway.FailurePolicy{Action: broadway.ActionStopPartition},
	})
	eventually(t, "all messages", out.has(n))
	r.stop(t)
}

func TestTLS(t *testing.T) {
	b := brokers.Kafka(t)
	addr, trust := b.TLS(t)
	topic := b.Topic(t, 1)
	b.Produce(t, topic, numbered("m", 10, 3, 1)...)
	cfg := config(t, b, topic)
	cfg.Brokers, cfg.TLS = []string{addr}, trust
	consumes(t, cfg, 10)

	for name, bad := range map[string]*tls.Config{"an unknown authority": {}, "another name": {RootCAs: trust.RootCAs, ServerName: "elsewhere"}} {
		cfg.TLS = bad
		p := kafka.NewProducer(cfg)
		if err := p.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: Connect: %v", name, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	cfg.TLS, cfg.Brokers = trust, b.Addrs()
	p := kafka.NewProducer(cfg)
	if err := p.Connect(t.Context()); err == nil {
		t.Error("a plain listener was spoken to with TLS, and it worked")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestWrongCredentialsAreSaidAndTriedAgain: the password is rotated late. Health
// names the reason, never the password, and the producer comes back by itself.
func TestWrongCredentialsAreSaidAndTriedAgain(t *testing.T) {
	for _, mechanism := range []kafka.Mechanism{kafka.Plain, kafka.ScramSHA256, kafka.ScramSHA512} {
		t.Run(string(mechanism), func(t *testing.T) {
			f := newFake(t, kfake.EnableSASL(), kfake.Superuser(string(mechanism), "alice", "right"), kfake.SeedTopics(1, "t"))
			var right atomic.Bool
			sasl := &kafka.SASL{Mechanism: mechanism, Credentials: func(context.Context) (kafka.Credentials, error) {
				if right.Load() {
					return kafka.Credentials{Username: "alice", Password: "right"}, nil
				}
				return kafka.Credentials{Username: "alice", Password: "hunter2"}, nil
			}}
			cfg := f.config(t, "t")
			cfg.SASL = sasl
			source, out := kafka.NewProducer(cfg), newSink()
			r := run(t, broadway.Config{
				Producers:        []broadway.Producer{source},
				Processor:        broadway.ProcessorConfig{Handler: out.handle},
				Failure:          broadway.FailurePolicy{Action: broadway.ActionStopPartition},
				ReconnectBackoff: broadway.Backoff{Initial: 10e6, Max: 100e6},
			})
			eventually(t, "the reason is said", unhealthy(source, "SASL"))
			if err := source.Health(); err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is in %v", err)
			}
			right.Store(true)
			eventually(t, "healthy", func() error {
				return errors.Join(source.Health(), r.Stats().Err)
			})
			r.stop(t)
		})
	}
}
