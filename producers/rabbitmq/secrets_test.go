package rabbitmq_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/internal/tlstest"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// book is a log that may be written by many.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *book) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// TestNoSecretIsSaidOverReconnectsAndPanics: connections are cut, every third
// password is wrong, and handlers panic; neither the log at its most talkative, nor
// Stats, nor any error has a password.
func TestNoSecretIsSaidOverReconnectsAndPanics(t *testing.T) {
	const n = 20
	broker := brokers.RabbitMQ(t)
	at, err := url.Parse(broker.URL())
	if err != nil {
		t.Fatal("the broker's URL is none")
	}
	right, _ := at.User.Password()
	queue, copies := broker.Queue(t), broker.Queue(t)
	var dials, handled atomic.Int64
	credentials := func(context.Context) (rabbitmq.Credentials, error) {
		c := rabbitmq.Credentials{Username: at.User.Username(), Password: rabbitmq.Secret(right)}
		if dials.Add(1)%3 == 1 {
			c.Password = canary
		}
		return c, nil
	}
	port := 0
	if _, err := fmt.Sscan(at.Port(), &port); err != nil {
		t.Fatal(err)
	}
	log, seen := &book{}, &book{}
	backoff := broadway.Backoff{Initial: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	cfg := rabbitmq.Config{
		Host: at.Hostname(), Port: port, VHost: strings.TrimPrefix(at.Path, "/"), Queue: queue, Prefetch: n,
		Credentials: credentials, Backoff: backoff, Logger: log.logger(),
	}
	source := rabbitmq.NewProducer(cfg)
	publisher := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{
		Host: cfg.Host, Port: port, VHost: cfg.VHost, RoutingKey: copies, Credentials: credentials, Backoff: backoff, Logger: log.logger(),
	})
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{source}, Logger: log.logger(), MaxUnsettled: 2 * n,
		Processor: broadway.ProcessorConfig{Handler: func(ctx context.Context, m *broadway.Message) error {
			handled.Add(1)
			if m.Attempt == 1 {
				panic(fmt.Sprint(cfg, source.Stats()))
			}
			return publisher.Publish(ctx, broadway.Record{Payload: m.Payload})
		}},
		Failure:          broadway.FailurePolicy{Action: broadway.ActionRequeue, Backoff: backoff},
		ReconnectBackoff: backoff,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx) }()
	for round := range 2 {
		publishAll(t, broker, queue, n)
		want := int64(2*n) * int64(round+1)
		if !poll(func() bool {
			st := p.Stats()
			fmt.Fprintf(seen, "%+v %v %v\n", st, st.Err, source.Health())
			return handled.Load() >= want
		}) {
			t.Fatalf("%d of %d handlings; %+v", handled.Load(), want, p.Stats())
		}
		broker.CloseConnections(t)
	}
	stop()
	fmt.Fprintln(seen, <-ran, publisher.Close())
	if !strings.Contains(log.String(), "session lost") || !strings.Contains(log.String(), "ACCESS_REFUSED") && !strings.Contains(log.String(), "403") {
		t.Errorf("nothing was said of lost sessions, or of wrong passwords:\n%s", log)
	}
	for where, text := range map[string]string{"the log": log.String(), "Stats and errors": seen.String()} {
		if strings.Contains(text, right) || strings.Contains(text, canary) {
			t.Errorf("a password is in %s:\n%s", where, strings.ReplaceAll(text, right, "(here)"))
		}
	}
}

// TestAPublisherThatVerifiesNobodyIsWarnedOf, once; a producer tells the pipeline.
func TestAPublisherThatVerifiesNobodyIsWarnedOf(t *testing.T) {
	addr, log := tlstest.Silent(t), &book{}
	p := rabbitmq.NewPublisher(rabbitmq.PublisherConfig{
		Host: "127.0.0.1", Port: addr.(*net.TCPAddr).Port, TLS: &tls.Config{InsecureSkipVerify: true},
		ConfirmTimeout: 100 * time.Millisecond, Logger: log.logger(),
	})
	for range 2 {
		if err := p.Publish(t.Context(), broadway.Record{Destination: "q"}); err == nil {
			t.Error("published to a pretender")
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "not verified"); n != 1 {
		t.Errorf("%d warnings: %s", n, log)
	}
	for _, cfg := range []*tls.Config{nil, {InsecureSkipVerify: true}} {
		traits := rabbitmq.NewProducer(rabbitmq.Config{Queue: "q", TLS: cfg}).Describe(broadway.Limits{MaxUnsettled: 1, Share: 1})
		if traits.TLSInsecure != (cfg != nil) {
			t.Errorf("TLSInsecure is %v", traits.TLSInsecure)
		}
	}
}
