package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// patience is how long a test waits for something that a broker must do.
const patience = 60 * time.Second

// on runs a test on the embedded stand-in and on a real Kafka, at the same time.
func on(t *testing.T, test func(*testing.T, *brokers.KafkaBroker)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, brokers.Embedded(t))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, brokers.Kafka(t))
	})
}

// logger writes to the test's log, as long as it runs.
func logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.end)
	return slog.New(slog.NewTextHandler(w, nil))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func (w *testWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}

// config is for a group of its own, with times short enough for a test.
func config(t testing.TB, b *brokers.KafkaBroker, topics ...string) kafka.Config {
	return kafka.Config{
		Brokers: b.Addrs(), Topics: topics, Group: b.Group(t),
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 10 * time.Second, HeartbeatInterval: 300 * time.Millisecond,
		MetadataInterval: 500 * time.Millisecond, CommitInterval: 50 * time.Millisecond, MaxWait: 100 * time.Millisecond,
		Logger: logger(t),
	}
}

// numbered are n records with payloads prefix-0, prefix-1, …, over keys.
func numbered(prefix string, n, keys, partitions int) []brokers.Record {
	records := make([]brokers.Record, n)
	for i := range records {
		records[i] = brokers.Record{
			Partition: i % keys % partitions,
			Key:       fmt.Appendf(nil, "k%d", i%keys),
			Value:     fmt.Appendf(nil, "%s-%d", prefix, i),
		}
	}
	return records
}

// running is a pipeline that runs.
type running struct {
	*broadway.Pipeline
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// run starts a pipeline that the test's end stops.
func run(t testing.TB, cfg broadway.Config) *running {
	t.Helper()
	cfg.Logger = logger(t)
	p, err := broadway.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Pipeline: p, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// stop ends the pipeline and fails the test when it does not drain.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatalf("the pipeline does not stop: %s", r.Stats().WaitingFor)
	}
	if r.err != nil {
		t.Fatalf("Run: %v", r.err)
	}
}

// eventually polls until check says nil.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// sink counts payloads.
type sink struct {
	mu   sync.Mutex
	seen map[string]int
}

func newSink() *sink { return &sink{seen: map[string]int{}} }

func (s *sink) handle(_ context.Context, m *broadway.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[string(m.Payload)]++
	return nil
}

func (s *sink) distinct() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// has says whether n distinct payloads came.
func (s *sink) has(n int) func() error {
	return func() error {
		if got := s.distinct(); got != n {
			return fmt.Errorf("%d distinct payloads, want %d", got, n)
		}
		return nil
	}
}

// duplicates counts payloads beyond their first.
func (s *sink) duplicates() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.seen {
		n += times - 1
	}
	return n
}

// wantTwice says whether n payloads came beyond their first.
func wantTwice(out *sink, n int) error {
	if got := out.duplicates(); got != n {
		return fmt.Errorf("%d duplicates, want %d", got, n)
	}
	return nil
}

// committedToEnd says whether a group has committed all that is in a topic.
func committedToEnd(t testing.TB, b *brokers.KafkaBroker, group, topic string) func() error {
	return func() error {
		ends, committed := b.EndOffsets(t, topic), b.CommittedOffsets(t, group, topic)
		for i := range ends {
			if committed[i] != ends[i] && (ends[i] != 0 || committed[i] > 0) {
				return fmt.Errorf("committed %v, ends %v", committed, ends)
			}
		}
		return nil
	}
}

func healthy(p *kafka.Producer) func() error { return p.Health }

func unhealthy(p *kafka.Producer, want string) func() error {
	return func() error {
		if err := p.Health(); err == nil || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("health %v, want %q", err, want)
		}
		return nil
	}
}

var errBad = errors.New("bad")

// unusedAddr is an address on loopback where nobody listens.
func unusedAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// payloads are the distinct payloads, sorted, but for "new" which comes last.
func (s *sink) payloads() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Sorted(maps.Keys(s.seen))
	if i := slices.Index(all, "new"); i >= 0 {
		all = append(slices.Delete(all, i, i+1), "new")
	}
	return all
}
