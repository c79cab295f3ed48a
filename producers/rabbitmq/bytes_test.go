package rabbitmq_test

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

func inUse() int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// TestAPrefetchOfLargeMessagesStaysWithinTheBytes: the broker may push 80 messages
// of 1 MB, and no more than 8 MiB come while handlers stand still: nothing is
// handed back for it, nothing delivered twice, and a batch that waits for more is
// reported. Then a drain and a pause let the broker's answers through.
func TestAPrefetchOfLargeMessagesStaysWithinTheBytes(t *testing.T) {
	const n, size, bound = 60, 1_000_000, 8 << 20
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	for range n {
		broker.Publish(t, queue, make([]byte, size))
	}
	source := rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, Prefetch: 80}))
	free := make(chan struct{})
	var again, largest atomic.Int64
	p, err := broadway.New(broadway.Config{
		Producers: []broadway.Producer{source}, Logger: testLogger(t),
		Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(_ context.Context, m *broadway.Message) error {
			<-free
			if m.Redelivered {
				again.Add(1)
			}
			return nil
		}},
		Batchers: []broadway.BatcherConfig{{Size: 50, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
			largest.Store(max(largest.Load(), int64(len(b.Messages))))
			return nil
		}}},
		Failure:      broadway.FailurePolicy{Action: broadway.ActionReject},
		MaxUnsettled: 80, MaxUnsettledBytes: bound, DrainTimeout: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	before := inUse()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	if !poll(func() bool { _, waits := source.Held(); return waits }) {
		t.Fatal("the socket is read on and on")
	}
	grown := inUse() - before
	if held, _ := source.Held(); held > bound+size || grown > 2*bound {
		t.Errorf("%d bytes are held, and the heap has grown by %d", held, grown)
	}
	close(free)
	if !poll(func() bool { return p.Stats().Succeeded >= n-8 }) {
		t.Fatalf("stuck: %+v", p.Stats())
	}
	if s := source.Stats(); s.Sessions != 1 || s.Returned != 0 || again.Load() != 0 || largest.Load() > 8 {
		t.Errorf("%+v, %d redelivered, a batch of %d", s, again.Load(), largest.Load())
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if st := p.Stats(); st.Succeeded+st.Released < n-8 || st.HighestUnsettledBytes > bound {
		t.Errorf("%+v", st)
	}
}

// TestAHeldUpConnectionStops: a drain and a pause get the broker's answers though
// the socket is held up, keep none of what comes before them, and give it back.
func TestAHeldUpConnectionStops(t *testing.T) {
	const n, size, bound = 60, 1_000_000, 4 << 20
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	for range n {
		broker.Publish(t, queue, make([]byte, size))
	}
	p := rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, Prefetch: n, CloseTimeout: patience}))
	p.Describe(broadway.Limits{MaxUnsettled: n, MaxUnsettledBytes: bound, Share: n})
	if err := p.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	held := func() bool { _, waits := p.Held(); return waits }
	for range 2 {
		if !poll(held) {
			t.Fatal("the socket is read on and on")
		}
		if err := p.Pause(within(t)); err != nil {
			t.Fatal(err)
		}
		if bytes, _ := p.Held(); bytes != 0 {
			t.Errorf("%d bytes are held while it pauses", bytes)
		}
		if err := p.Resume(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	got := fetch(t, p, 2)
	if !poll(held) {
		t.Fatal("the socket is read on and on")
	}
	if err := p.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	ack(t, got...)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Sessions != 1 || s.Stale != 0 {
		t.Errorf("%+v", s)
	}
	if !poll(func() bool { ready, unacked := broker.Depth(t, queue); return ready == n-2 && unacked == 0 }) {
		t.Error("not all came back")
	}
}

// TestHeldUpLongerThanHeartbeats: the broker takes a reader that reads nothing, and
// acknowledges nothing, for a living one, and so does the client the broker.
func TestHeldUpLongerThanHeartbeats(t *testing.T) {
	const n, size, bound = 30, 1_000_000, 2 << 20
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	for range n {
		broker.Publish(t, queue, make([]byte, size))
	}
	p := rabbitmq.NewProducer(quick(t, rabbitmq.Config{URL: broker.URL(), Queue: queue, Prefetch: n, Heartbeat: time.Second}))
	p.Describe(broadway.Limits{MaxUnsettled: n, MaxUnsettledBytes: bound, Share: n})
	if err := p.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	got := fetch(t, p, 1)
	pause, done := context.WithTimeout(t.Context(), 6*time.Second) // real heartbeats need real time
	<-pause.Done()
	done()
	for total := 1; total < n; total++ {
		ack(t, got...)
		got = fetch(t, p, 1)
	}
	ack(t, got...)
	if s := p.Stats(); s.Sessions != 1 || s.Stale != 0 {
		t.Errorf("%+v", s)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}
