package kafka_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
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

// TestNoSecretIsSaidOverReconnectsAndPanics: connections are cut, every fifth
// password is wrong, and handlers panic; neither the log at its most talkative, nor
// Stats, nor any error has a password.
func TestNoSecretIsSaidOverReconnectsAndPanics(t *testing.T) {
	const right, wrong, n = canary + "-right", canary + "-wrong", 20
	f := newFake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", right), kfake.SeedTopics(1, "t", "dead"))
	f.produce(t, "t", "m", 0, n, 1, kgo.SASL(plain.Auth{User: "alice", Pass: right}.AsMechanism()))
	var dials, fetches atomic.Int64
	f.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		if n := fetches.Add(1); n < 30 && n%3 == 0 {
			return nil, errors.New("cut"), true
		}
		return nil, nil, false
	})
	sasl := &kafka.SASL{Mechanism: kafka.Plain, Credentials: func(context.Context) (kafka.Credentials, error) {
		if dials.Add(1)%5 == 1 {
			return kafka.Credentials{Username: "alice", Password: wrong}, nil
		}
		return kafka.Credentials{Username: "alice", Password: right}, nil
	}}
	log, seen := &book{}, &book{}
	cfg := f.config(t, "t")
	cfg.SASL, cfg.Logger = sasl, log.logger()
	source := kafka.NewProducer(cfg)
	letters := kafka.NewPublisher(kafka.PublisherConfig{Brokers: cfg.Brokers, Topic: "dead", SASL: sasl, Logger: log.logger()})
	var handled atomic.Int64
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{source}, Logger: log.logger(),
		Processor: broadway.ProcessorConfig{Handler: func(ctx context.Context, m *broadway.Message) error {
			handled.Add(1)
			if m.Attempt == 1 {
				panic(fmt.Sprint(cfg.SASL, source.Stats()))
			}
			return letters.Publish(ctx, broadway.Record{Payload: m.Payload})
		}},
		Failure:          broadway.FailurePolicy{Action: broadway.ActionStopPartition, MaxAttempts: 20, Backoff: broadway.Backoff{Initial: 10e6, Max: 50e6}},
		ReconnectBackoff: broadway.Backoff{Initial: 10e6, Max: 100e6},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx) }()
	eventually(t, "all is copied, through cut connections", func() error {
		st := p.Stats()
		fmt.Fprintf(seen, "%+v %v %v\n", st, st.Err, source.Health())
		if st.Succeeded < n || fetches.Load() < 30 {
			return fmt.Errorf("%d of %d, %d fetches", st.Succeeded, n, fetches.Load())
		}
		return nil
	})
	stop()
	fmt.Fprintln(seen, <-ran, letters.Close())
	if !strings.Contains(log.String(), "SASL") {
		t.Errorf("nothing was said of wrong passwords:\n%s", log)
	}
	for where, text := range map[string]string{"the log": log.String(), "Stats and errors": seen.String()} {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
			t.Errorf("a password is in %s:\n%s", where, text)
		}
	}
}

// TestAPublisherThatVerifiesNobodyIsWarnedOf, once; a producer tells the pipeline.
func TestAPublisherThatVerifiesNobodyIsWarnedOf(t *testing.T) {
	f, log := newFake(t, kfake.SeedTopics(1, "t")), &book{}
	p := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: f.ListenAddrs(), Topic: "t", Timeout: 100e6, TLS: &tls.Config{InsecureSkipVerify: true}, Logger: log.logger(),
	})
	for range 2 {
		if err := p.Publish(t.Context(), broadway.Record{}); err == nil {
			t.Error("published to a plain listener")
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "not verified"); n != 1 {
		t.Errorf("%d warnings: %s", n, log)
	}
	cfg := f.config(t, "t")
	for _, want := range []bool{false, true} {
		if got := kafka.NewProducer(cfg).Describe(broadway.Limits{MaxUnsettled: 1}).TLSInsecure; got != want {
			t.Errorf("TLSInsecure is %v, want %v", got, want)
		}
		cfg.TLS = &tls.Config{InsecureSkipVerify: true}
	}
}
