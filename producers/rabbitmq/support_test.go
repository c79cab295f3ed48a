package rabbitmq_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

const (
	// patience is how long the tests wait for a broker.
	patience = 60 * time.Second
	plenty   = 64 << 20
)

func TestMain(m *testing.M) {
	if args := os.Getenv(mortalVariable); args != "" {
		os.Exit(runMortal(args))
	}
	goleak.VerifyTestMain(m)
}

// testLogger logs to t.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// poll asks until done says yes, and says whether it did in time.
func poll(done func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}

// within is a context for one step of t.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// quick makes a Config reconnect without long waits, and log to t.
func quick(t testing.TB, cfg rabbitmq.Config) rabbitmq.Config {
	if cfg.Backoff.Initial == 0 {
		cfg.Backoff = broadway.Backoff{Initial: 20 * time.Millisecond, Max: 200 * time.Millisecond}
	}
	if cfg.Logger == nil {
		cfg.Logger = testLogger(t)
	}
	return cfg
}

// connect makes a producer that a pipeline with a bound of share would have.
func connect(t testing.TB, cfg rabbitmq.Config, share int) *rabbitmq.Producer {
	t.Helper()
	p := rabbitmq.NewProducer(quick(t, cfg))
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	p.Describe(broadway.Limits{MaxUnsettled: share, MaxUnsettledBytes: plenty, Share: share})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Logf("close: %v", err)
		}
	})
	if err := p.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	return p
}

// fetch gets n messages.
func fetch(t testing.TB, p *rabbitmq.Producer, n int) []*broadway.Message {
	t.Helper()
	ctx := within(t)
	var got []*broadway.Message
	for len(got) < n {
		messages, err := p.Fetch(ctx, broadway.Demand{Messages: n - len(got), Bytes: plenty})
		if err != nil {
			t.Fatalf("%d of %d messages came, then: %v", len(got), n, err)
		}
		got = append(got, messages...)
	}
	return got
}

// ack settles messages of one session as succeeded.
func ack(t testing.TB, messages ...*broadway.Message) {
	t.Helper()
	ref := messages[0].Ref()
	if err := ref.Acknowledger().Ack(t.Context(), ref, messages, nil); err != nil {
		t.Error(err)
	}
}

// release gives messages of one session back.
func release(t testing.TB, messages ...*broadway.Message) {
	t.Helper()
	ref := messages[0].Ref()
	if err := ref.Acknowledger().(broadway.Releaser).Release(t.Context(), ref, messages); err != nil {
		t.Error(err)
	}
}

// payloads makes n different ones.
func payloads(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = fmt.Appendf(nil, "message %05d", i)
	}
	return all
}

func texts(messages []*broadway.Message) []string {
	all := make([]string, len(messages))
	for i, m := range messages {
		all[i] = string(m.Payload)
	}
	return all
}
