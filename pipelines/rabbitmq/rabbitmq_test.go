package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/pipelines"
	pipelinesrabbitmq "github.com/gobroadway/gobroadway/pipelines/rabbitmq"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry is one with the kind, and a handler that does nothing.
func registry() *pipelines.Registry {
	r := pipelines.NewRegistry()
	pipelinesrabbitmq.Register(r)
	r.Logger(slog.New(slog.DiscardHandler))
	r.Processor("render", func(context.Context, *broadway.Message) error { return nil })
	return r
}

// decoded is the Config of a section, by a kind that keeps it.
func decoded(t *testing.T, section string, keep func(*pipelines.Section) error) error {
	t.Helper()
	r := registry()
	r.Source("kept", func(s *pipelines.Section) (broadway.Producer, error) {
		if err := keep(s); err != nil {
			return nil, err
		}
		return nil, errors.New("kept")
	})
	_, err := pipelines.Parse("x.yaml", []byte("producers:\n  - kept:\n"+section+"processor: {handler: render}\n"), r)
	require.Error(t, err)
	if strings.HasSuffix(err.Error(), "producers[0].kept: kept") {
		return nil
	}
	return err
}

func TestEveryKeyOfASourceArrives(t *testing.T) {
	t.Setenv("PASSWORD", "swordfish")
	var got rabbitmq.Config
	require.NoError(t, decoded(t, `
      host: h
      port: 1
      vhost: v
      username: u
      password_env: PASSWORD
      connection_name: c
      dial_timeout: 1s
      close_timeout: 2s
      heartbeat: 3s
      backoff: {initial: 4s, max: 5s, factor: 6, jitter: 0}
      queue: q
      declare:
        durable: true
        auto_delete: true
        exclusive: true
        passive: true
        type: quorum
        single_active_consumer: true
        dead_letter_exchange: x
        dead_letter_routing_key: k
        arguments: {x-max-length: 7, x-overflow: reject-publish, nested: {flag: true, list: [1, 0.5]}}
      exchanges:
        - {name: e, kind: topic, durable: true, auto_delete: true, internal: true, passive: true, arguments: {alternate-exchange: a}}
      bindings:
        - {queue: q, exchange: e, routing_key: r, arguments: {x-match: all}}
      consumer: {tag: t, exclusive: true, priority: -8, arguments: {x-cancel-on-ha-failover: true}}
      prefetch: 9
      ack_timeout: 10m
      lag_interval: never
`, func(s *pipelines.Section) (err error) { got, err = pipelinesrabbitmq.SourceConfig(s); return err }))
	require.NotNil(t, got.Logger)
	c, err := got.Credentials(t.Context())
	require.NoError(t, err)
	require.Equal(t, rabbitmq.Credentials{Username: "u", Password: "swordfish"}, c)
	got.Logger, got.Credentials = nil, nil
	want := rabbitmq.Config{
		Host: "h", Port: 1, VHost: "v", ConnectionName: "c",
		DialTimeout: time.Second, CloseTimeout: 2 * time.Second, Heartbeat: 3 * time.Second,
		Backoff: broadway.Backoff{Initial: 4 * time.Second, Max: 5 * time.Second, Factor: 6, Jitter: -1},
		Queue:   "q",
		Declare: &rabbitmq.QueueDeclare{
			Durable: true, AutoDelete: true, Exclusive: true, Passive: true, Type: "quorum", SingleActiveConsumer: true,
			DeadLetterExchange: "x", DeadLetterRoutingKey: "k",
			Arguments: rabbitmq.Table{
				"x-max-length": int64(7), "x-overflow": "reject-publish",
				"nested": map[string]any{"flag": true, "list": []any{int64(1), 0.5}},
			},
		},
		Exchanges: []rabbitmq.ExchangeDeclare{{
			Name: "e", Kind: "topic", Durable: true, AutoDelete: true, Internal: true, Passive: true,
			Arguments: rabbitmq.Table{"alternate-exchange": "a"},
		}},
		Bindings: []rabbitmq.Binding{{Queue: "q", Exchange: "e", RoutingKey: "r", Arguments: rabbitmq.Table{"x-match": "all"}}},
		Consumer: rabbitmq.Consumer{Tag: "t", Exclusive: true, Priority: -8, Arguments: rabbitmq.Table{"x-cancel-on-ha-failover": true}},
		Prefetch: 9, AckTimeout: 10 * time.Minute, LagInterval: -1,
	}
	require.Equal(t, want.Declare, got.Declare)
	want.Declare, got.Declare = nil, nil
	require.Equal(t, want, got)
}

func TestEveryKeyOfAPublisherArrives(t *testing.T) {
	var got rabbitmq.PublisherConfig
	require.NoError(t, decoded(t, `
      host: h
      tls: {server_name: other}
      external: true
      exchange: x
      routing_key: k
      exchanges: [{name: x, kind: direct}]
      queues: [{name: q, durable: true, type: quorum}]
      bindings: [{queue: q, exchange: x, routing_key: k}]
      allow_unroutable: true
      confirm_timeout: 1s
      max_bytes: 2KiB
`, func(s *pipelines.Section) (err error) { got, err = pipelinesrabbitmq.PublisherConfig(s); return err }))
	require.Equal(t, "other", got.TLS.ServerName)
	c, err := got.Credentials(t.Context())
	require.NoError(t, err)
	require.Equal(t, rabbitmq.Credentials{External: true}, c)
	got.TLS, got.Credentials, got.Logger = nil, nil, nil
	require.Equal(t, rabbitmq.PublisherConfig{
		Host: "h", Exchange: "x", RoutingKey: "k",
		Exchanges:       []rabbitmq.ExchangeDeclare{{Name: "x", Kind: "direct"}},
		Queues:          []rabbitmq.QueueDeclare{{Name: "q", Durable: true, Type: "quorum"}},
		Bindings:        []rabbitmq.Binding{{Queue: "q", Exchange: "x", RoutingKey: "k"}},
		AllowUnroutable: true, ConfirmTimeout: time.Second, MaxBytes: 2 << 10,
	}, got)
}

func TestThePasswordIsReadAtEachDial(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("first"), 0o600))
	var got rabbitmq.Config
	require.NoError(t, decoded(t, "      username: u\n      password_file: "+file+"\n",
		func(s *pipelines.Section) (err error) { got, err = pipelinesrabbitmq.SourceConfig(s); return err }))
	for _, want := range []string{"first", "second"} {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o600))
		c, err := got.Credentials(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, string(c.Password))
	}
	require.NoError(t, os.Remove(file))
	_, err := got.Credentials(t.Context())
	require.Error(t, err)
}

func TestAFileConsumesAndSendsDeadLetters(t *testing.T) {
	b := brokers.RabbitMQ(t)
	t.Setenv("RABBITMQ_URL", b.URL())
	queue, dead := b.Queue(t, brokers.Quorum()), b.Queue(t)
	b.Publish(t, queue, []byte("good"), []byte("bad"))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var handled atomic.Int64
	r := registry()
	r.Processor("handle", func(_ context.Context, m *broadway.Message) error {
		if handled.Add(1) == 2 {
			defer cancel()
		}
		if string(m.Payload) == "bad" {
			return broadway.Reject(errors.New("bad"))
		}
		return nil
	})
	list, err := pipelines.Parse("x.yaml", fmt.Appendf(nil, `
producers:
  - rabbitmq:
      url_env: RABBITMQ_URL
      queue: %s
      declare: {passive: true, type: quorum}
      prefetch: 10
processor: {handler: handle}
failure:
  action: dead_letter
  dead_letter:
    rabbitmq: {url_env: RABBITMQ_URL, routing_key: %s}
`, queue, dead), r)
	require.NoError(t, err)
	require.NoError(t, list[0].Run(ctx))
	require.EqualValues(t, 2, handled.Load(), "before the time was over")
	require.Equal(t, 1, b.Ready(t, dead))
	ready, unacked := b.Depth(t, queue)
	require.Zero(t, ready+unacked)
}
