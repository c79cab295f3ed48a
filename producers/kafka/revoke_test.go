package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// gate is a handler that holds the messages of one payload until it is opened.
type gate struct {
	out     *sink
	holds   string
	entered chan struct{}
	open    chan struct{}
}

func newGate(out *sink, holds string) *gate {
	return &gate{out: out, holds: holds, entered: make(chan struct{}, 10), open: make(chan struct{})}
}

func (g *gate) handle(ctx context.Context, m *broadway.Message) error {
	if string(m.Payload) == g.holds {
		g.entered <- struct{}{}
		<-g.open
	}
	return g.out.handle(ctx, m)
}

// TestADrainLongerThanTheSessionKeepsItsMember: work that runs when the group
// rebalances is finished and committed on the ending generation, while signs of
// life go on.
func TestADrainLongerThanTheSessionKeepsItsMember(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(2, "t"))
	f.produce(t, "t", "m", 0, 2, 2)
	cfg := f.config(t, "t")
	cfg.SessionTimeout, cfg.HeartbeatInterval = 600*time.Millisecond, 100*time.Millisecond
	out := newSink()
	held := newGate(out, "m-0")
	first, second := kafka.NewProducer(cfg), kafka.NewProducer(cfg)
	p := pipeline(first, out)
	p.Processor.Handler = held.handle
	a := run(t, p)
	<-held.entered
	eventually(t, "the other one is committed", f.wantCommitted("t", 0, 1))

	b := run(t, pipeline(second, out))
	signs := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Observe: true, Count: -1})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Three times the session time-out, counted in signs of life.
	if err := signs.Wait(ctx, int(3*cfg.SessionTimeout/cfg.HeartbeatInterval)); err != nil {
		t.Fatal(err)
	}
	close(held.open)
	eventually(t, "both are members", func() error {
		if g := f.GroupInfo("g"); g.State != "Stable" || len(g.Members) != 2 {
			return fmt.Errorf("%s with %d members", g.State, len(g.Members))
		}
		return nil
	})
	eventually(t, "committed", f.wantCommitted("t", 1, 1))
	b.stop(t)
	a.stop(t)
	if s := first.Stats(); s.Fenced != 0 || s.Abandoned != 0 || out.duplicates() != 0 {
		t.Errorf("%d duplicates, %+v; want none, and nobody fenced", out.duplicates(), s)
	}
}

// TestWorkThatOutlastsTheBudgetIsAbandoned when its partition goes to another member,
// which goes on with it; the late settle moves nothing.
func TestWorkThatOutlastsTheBudgetIsAbandoned(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 3, 1)
	cfg := f.config(t, "t")
	cfg.SessionTimeout, cfg.RebalanceTimeout = 900*time.Millisecond, 1500*time.Millisecond
	out := newSink()
	held := newGate(out, "m-1")
	source := kafka.NewProducer(cfg)
	p := pipeline(source, out)
	p.Processor.Handler = held.handle
	p.Processor.Concurrency = 1
	a := run(t, p)
	<-held.entered

	other := newSink()
	cfg.ClientID = "c" // after "broadway": the last member gets the only partition
	b := run(t, pipeline(kafka.NewProducer(cfg), other))
	eventually(t, "abandoned", func() error {
		if n := source.Stats().Abandoned; n != 1 {
			return fmt.Errorf("%d abandoned, want 1", n)
		}
		return nil
	})
	close(held.open)
	// Whoever owns the partition now handles the abandoned message again.
	eventually(t, "committed", f.wantCommitted("t", 3))
	a.stop(t)
	b.stop(t)
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.seen["m-1"]+other.seen["m-1"] < 2 {
		t.Error("the abandoned message was not handled again")
	}
}

// TestReleasedMessagesComeAgainAlone: within the same generation the partition
// begins again with the oldest unsettled message, and what has settled above it
// does not come again.
func TestReleasedMessagesComeAgainAlone(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 10, 1)
	d := drive(t, kafka.NewProducer(f.config(t, "t")))
	got := d.fetch(10)
	for i, m := range got {
		if i == 3 || i == 7 {
			d.release(m)
		} else {
			d.ack(m)
		}
	}
	again := d.fetch(2)
	if string(again[0].Payload) != "m-3" || string(again[1].Payload) != "m-7" {
		t.Fatalf("%q and %q came again", again[0].Payload, again[1].Payload)
	}
	if !got[0].Ref().Ended() || again[0].Ref() == got[0].Ref() {
		t.Error("they came within the epoch that had released them")
	}
	eventually(t, "the prefix is committed", f.wantCommitted("t", 3))
	d.ack(again[1])
	d.ack(again[0])
	eventually(t, "all is committed", f.wantCommitted("t", 10))
	f.produce(t, "t", "n", 0, 1, 1)
	if next := d.fetch(1); string(next[0].Payload) != "n-0" {
		t.Errorf("%q came next", next[0].Payload)
	} else {
		d.ack(next[0])
	}
	if s := d.producer.Stats(); s.Rewinds != 1 || s.Generations != 1 {
		t.Errorf("%+v, want one rewind in one generation", s)
	}
}

// driven is a producer that a test drives by hand, as a pipeline would.
type driven struct {
	t        testing.TB
	producer *kafka.Producer
}

func drive(t testing.TB, p *kafka.Producer) *driven {
	t.Helper()
	p.Describe(broadway.Limits{MaxUnsettled: 100, MaxUnsettledBytes: 1 << 20, Share: 100})
	if err := p.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return &driven{t, p}
}

// fetch gets n messages.
func (d *driven) fetch(n int) (all []*broadway.Message) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	for len(all) < n {
		got, err := d.producer.Fetch(ctx, broadway.Demand{Messages: n - len(all), Bytes: 1 << 20})
		if err != nil {
			d.t.Fatalf("Fetch after %d of %d: %v", len(all), n, err)
		}
		all = append(all, got...)
	}
	return all
}

// none fails the test when something comes within d.
func (d *driven) none(within time.Duration) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), within)
	defer cancel()
	if got, err := d.producer.Fetch(ctx, broadway.Demand{Messages: 1, Bytes: 1 << 20}); !errors.Is(err, context.DeadlineExceeded) {
		d.t.Fatalf("%d messages came, %v", len(got), err)
	}
}

func (d *driven) ack(messages ...*broadway.Message) {
	d.t.Helper()
	for _, m := range messages {
		if err := d.producer.Ack(d.t.Context(), m.Ref(), []*broadway.Message{m}, nil); err != nil {
			d.t.Fatal(err)
		}
		m.Ref().Untake(1)
	}
}

func (d *driven) release(messages ...*broadway.Message) {
	d.t.Helper()
	for _, m := range messages {
		if err := d.producer.Release(d.t.Context(), m.Ref(), []*broadway.Message{m}); err != nil {
			d.t.Fatal(err)
		}
		m.Ref().Untake(1)
	}
}

// TestABlockedPartitionDoesNotHoldUpOthers: its share is half of what may be
// unsettled.
func TestABlockedPartitionDoesNotHoldUpOthers(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(8, "t"))
	f.produce(t, "t", "m", 0, 8000, 8)
	d := drive(t, kafka.NewProducer(f.config(t, "t")))
	blocked, others := 0, 0
	for others < 7000 {
		for _, m := range d.fetch(1) {
			if m.Metadata.(*kafka.Metadata).Partition == 3 {
				blocked++
			} else {
				others++
				d.ack(m)
			}
		}
	}
	if blocked != 50 {
		t.Errorf("%d messages of the blocked partition are out, want its share of 50", blocked)
	}
	d.none(200 * time.Millisecond)
}

// TestEvictedMessagesComeLater: what was fetched for partitions without room gives
// way to others of the same broker, and is fetched again.
func TestEvictedMessagesComeLater(t *testing.T) {
	f := newFake(t, kfake.NumBrokers(1), kfake.SeedTopics(6, "t"))
	for i := range 6 {
		f.produce(t, "t", fmt.Sprintf("%d-%0100d", i, i), 0, 600, 6, kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	cfg := f.config(t, "t")
	cfg.MaxBytes, cfg.MaxPartitionBytes = 100_000, 50_000
	d := drive(t, kafka.NewProducer(cfg))
	var held []*broadway.Message
	done := 0
	for done < 600 { // five partitions are blocked at their share, with data waiting behind
		for _, m := range d.fetch(1) {
			if m.Metadata.(*kafka.Metadata).Partition == 5 {
				done++
				d.ack(m)
			} else {
				held = append(held, m)
			}
		}
		if len(held) > 300 {
			break
		}
	}
	for {
		d.ack(held...)
		if done += len(held); done == 3600 {
			return
		}
		held = d.fetch(1)
	}
}

func TestLagCountsWhatIsNotSettled(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 100, 1)
	d := drive(t, kafka.NewProducer(f.config(t, "t")))
	got := d.fetch(10)
	want := func(n int64) {
		t.Helper()
		if lag := d.producer.Lag(); len(lag) != 1 || lag[0] != (broadway.Lag{Source: "t", Messages: n}) {
			t.Errorf("lag %+v, want %d", lag, n)
		}
	}
	want(100)
	d.ack(got[1:]...)
	want(100)
	d.ack(got[0])
	want(90)
}

func TestOrderIsByTopicPartitionAndKey(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(2, "t", "u"))
	for _, topic := range []string{"t", "u"} {
		for range 3 {
			f.produce(t, topic, "m", 0, 4, 2) // keys 0 to 3, two to a partition
		}
	}
	source := kafka.NewProducer(f.config(t, "t", "u"))
	order := source.Describe(broadway.Limits{}).PartitionBy
	d := drive(t, source)
	lanes := map[string]uint64{}
	distinct := map[uint64]string{}
	for _, m := range d.fetch(24) {
		meta := m.Metadata.(*kafka.Metadata)
		place := fmt.Sprint(meta.Topic, meta.Partition, string(meta.Key))
		if lane, seen := lanes[place]; seen && lane != order(m) {
			t.Errorf("%s has two lanes", place)
		}
		lanes[place] = order(m)
		distinct[order(m)] = place
		d.ack(m)
	}
	if len(lanes) != 8 || len(distinct) != 8 {
		t.Errorf("%d places in %d lanes, want 8 each", len(lanes), len(distinct))
	}
}

// TestTopicsMayComeLaterGrowAndBeCreatedAnew, without a restart.
func TestTopicsMayComeLaterGrowAndBeCreatedAnew(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Group(t) // a fresh name
		cfg := config(t, b, topic)
		source, out := kafka.NewProducer(cfg), newSink()
		r := run(t, pipeline(source, out))
		eventually(t, "the missing topic is said", unhealthy(source, topic))

		b.CreateTopic(t, topic, 1)
		b.Produce(t, topic, numbered("first", 10, 1, 1)...)
		eventually(t, "the new topic", out.has(10))
		eventually(t, "healthy", healthy(source))

		b.AddPartitions(t, topic, 3)
		b.Produce(t, topic, brokers.Record{Partition: 2, Value: []byte("grown")})
		eventually(t, "the new partition", out.has(11))
		eventually(t, "committed", committedToEnd(t, b, cfg.Group, topic))

		b.DeleteTopic(t, topic)
		b.CreateTopic(t, topic, 3)
		b.Produce(t, topic, numbered("again", 30, 3, 3)...)
		eventually(t, "the recreated topic", out.has(41))
		eventually(t, "committed", committedToEnd(t, b, cfg.Group, topic))
		r.stop(t)
		b.DeleteTopic(t, topic)
	})
}

// TestNothingIsAskedWithoutDemand: once the pipeline asks no more, neither does
// the producer; its signs of life go on.
func TestNothingIsAskedWithoutDemand(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(4, "t"))
	f.produce(t, "t", "m", 0, 8, 4)
	fetches := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Observe: true, Count: -1})
	beats := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Observe: true, Count: -1})
	d := drive(t, kafka.NewProducer(f.config(t, "t")))
	d.ack(d.fetch(8)...)
	quiet := fetches.Hits()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Ten heartbeats are twenty times MaxWait.
	if err := beats.Wait(ctx, beats.Hits()+10); err != nil {
		t.Fatal(err)
	}
	// Each call of Fetch lets each lane of each broker ask once ahead.
	if n := fetches.Hits(); n > quiet+9 {
		t.Errorf("%d requests went out after the last demand", n-quiet)
	}
}
