package kafka_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// metadata is what a commit of partition 0 carries.
func (f fake) metadata(topic string) string {
	if info := f.GroupInfo("g"); info != nil {
		return info.Commits[topic][0].Metadata
	}
	return ""
}

func (f fake) evicted(t *testing.T) func() error {
	return func() error { return evictClient(t.Context(), f.ListenAddrs(), "g", "") }
}

// After two crashes messages come one at a time. One that is released is still the
// same attempt, and none is handed out while its intent cannot be written.
func TestSuspectsComeOneAtATime(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 5, 1)
	cfg := f.config(t, "t")
	suspect(t, cfg, f.evicted(t))
	refused := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	d := drive(t, kafka.NewProducer(cfg))
	d.none(300 * time.Millisecond)
	if refused.Hits() == 0 {
		t.Error("no intent was written")
	}
	refused.Remove()
	for i := range 5 {
		m := d.fetch(1)[0]
		if m.Attempt != 1 || m.BatchMode != broadway.Flush || m.Seq() != int64(i) {
			t.Errorf("offset %d: attempt %d, mode %v; want %d", m.Seq(), m.Attempt, m.BatchMode, i)
		}
		d.none(50 * time.Millisecond)
		if i == 1 {
			d.release(m)
			if m = d.fetch(1)[0]; m.Attempt != 1 || m.Seq() != 1 {
				t.Errorf("after a release offset %d comes as attempt %d", m.Seq(), m.Attempt)
			}
		}
		d.ack(m)
	}
	eventually(t, "committed", f.wantCommitted("t", 5))
	if s := d.producer.Stats(); s.Suspects != 1 {
		t.Errorf("%+v", s)
	}
}

// While a message is tried alone, batches that would wait for more of other
// partitions close.
func TestATrialWaitsForNoBatchToFill(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(2, "t"))
	f.produce(t, "t", "m", 0, 1, 2) // in partition 0
	cfg := f.config(t, "t")
	suspect(t, cfg, f.evicted(t))
	f.produce(t, "t", "n", 0, 10, 2)
	out, began := newSink(), time.Now()
	p := pipeline(kafka.NewProducer(cfg), newSink())
	p.Batchers = []broadway.BatcherConfig{{Size: 100, Timeout: time.Hour, Reporter: func(ctx context.Context, b *broadway.Batch) error {
		for _, m := range b.Messages {
			_ = out.handle(ctx, m)
		}
		return nil
	}}}
	r := run(t, p)
	eventually(t, "the suspects", func() error {
		out.mu.Lock()
		defer out.mu.Unlock()
		if out.seen["m-0"] == 0 || out.seen["n-8"] == 0 {
			return fmt.Errorf("reported: %v", out.seen)
		}
		return nil
	})
	r.stop(t)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v: nothing closed the batches", took)
	}
}

// An ownership of a healthy group says once that it is open, and once that it has
// ended in good order; besides it commits when it begins to drain, perhaps twice.
func TestMarksCostAHealthyOwnershipTwoCommits(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(2, "t")) // nothing comes in partition 1
	f.produce(t, "t", "m", 0, 50, 1)
	commits := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Observe: true, Count: -1})
	cfg := f.config(t, "t")
	cfg.CommitInterval = time.Hour
	for round := range 3 {
		source, out := kafka.NewProducer(cfg), newSink()
		r := run(t, pipeline(source, out))
		eventually(t, "all", out.has(50))
		r.stop(t)
		if err := f.wantCommitted("t", int64(50*(round+1)), -1)(); err != nil {
			t.Error(err)
		}
		if s := source.Stats(); commits.Hits() > 4*(round+1) || s.Suspects != 0 {
			t.Errorf("%d commits after %d rounds, %+v", commits.Hits(), round+1, s)
		}
		if suspected, err := kafka.Suspected(f.metadata("t")); suspected || err != nil {
			t.Errorf("suspected: %v, %v", suspected, err)
		}
		f.produce(t, "t", fmt.Sprint("m-", round), 0, 50, 1)
	}
}

// A broker that takes less metadata gets less, and one that takes none gets none:
// nothing waits for marks then.
func TestMetadataThatIsTooLargeIsLeftOut(t *testing.T) {
	for _, most := range []int{0, 300} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"))
			f.produce(t, "t", "m", 0, 2000, 1)
			f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Count: -1, Err: kerr.OffsetMetadataTooLarge, When: func(r kmsg.Request) bool {
				return len(*r.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0].Metadata) > most
			}})
			source, out := kafka.NewProducer(f.config(t, "t")), newSink()
			p := pipeline(source, out)
			// Every eighth waits for the others, so that there is much to say.
			open := make(chan struct{})
			p.Processor.Unordered, p.Processor.Concurrency, p.MaxUnsettled = true, 300, 2000
			p.Processor.Handler = func(ctx context.Context, m *broadway.Message) error {
				if m.Seq()%8 == 0 {
					<-open
				}
				return out.handle(ctx, m)
			}
			r := run(t, p)
			eventually(t, "all others", out.has(1750))
			if most > 0 {
				eventually(t, "what fits is told", func() error {
					if n, err := kafka.Told(f.metadata("t")); n < 100 || n > 1700 || err != nil {
						return fmt.Errorf("%d are told, %v", n, err)
					}
					return nil
				})
			}
			close(open)
			eventually(t, "committed", f.wantCommitted("t", 2000))
			r.stop(t)
			if got := f.metadata("t"); (got == "") != (most == 0) || len(got) > most {
				t.Errorf("%d characters of metadata: %q", len(got), got)
			}
			if out.duplicates() != 0 || source.Stats().Generations != 1 {
				t.Errorf("%d duplicates, %+v", out.duplicates(), source.Stats())
			}
		})
	}
}

// A log that was cut, or is another one, has other messages: what was told of those
// before counts for none of them.
func TestATruncatedLogHasNoSuspects(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	cfg := f.config(t, "t")
	cfg.MaxPartitionBytes = 1 << 10 // an answer holds one message
	for i := range 10 {
		f.produce(t, "t", strings.Repeat("m", 1000), i, i+1, 1, kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	suspect(t, cfg, f.evicted(t))
	f.diverges(6, 3)
	out := newSink()
	p := pipeline(kafka.NewProducer(cfg), out)
	var mu sync.Mutex
	times := map[int64]int{}
	meet := make(chan bool)
	p.Processor.Handler = func(ctx context.Context, m *broadway.Message) error {
		mu.Lock()
		times[m.Seq()]++
		again := times[m.Seq()] == 2
		mu.Unlock()
		switch { // two of those that come again are handled at once
		case again && m.Seq() == 3:
			meet <- true
		case again && m.Seq() == 4:
			<-meet
		}
		return out.handle(ctx, m)
	}
	r := run(t, p)
	eventually(t, "committed", f.wantCommitted("t", 10))
	r.stop(t)
	if n := out.duplicates(); n != 3 {
		t.Errorf("%d came again, want 3", n)
	}
}

// A process that dies with nothing in hand leaves nothing to suspect.
func TestIdleDeathsAreNoSuspects(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 10, 1)
	cfg := f.config(t, "t")
	cfg.ClientID = "idle"
	last := int32(0)
	for range 2 {
		source, out := kafka.NewProducer(cfg), newSink()
		r := run(t, pipeline(source, out))
		eventually(t, "committed", f.wantCommitted("t", 10))
		eventually(t, "nobody is suspected", func() error {
			text := f.metadata("t")
			suspected, err1 := kafka.Suspected(text)
			in, err2 := kafka.WrittenIn(text)
			if in == last || suspected || err1 != nil || err2 != nil {
				return fmt.Errorf("in generation %d, suspected %v, %v, %v", in, suspected, err1, err2)
			}
			last = in
			return nil
		})
		if s := source.Stats(); s.Suspects != 0 {
			t.Errorf("%+v", s)
		}
		source.Kill()
		r.Abort()
		<-r.done
		// Unless it was quick enough to leave.
		if err := evictClient(t.Context(), f.ListenAddrs(), "g", cfg.ClientID); err != nil {
			t.Fatal(err)
		}
	}
}

// Attempts that others made count only when there is no doubt which message they
// were about.
func TestDoubtfulAttemptsDoNotCount(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic, twin := b.Topic(t, 1), b.Topic(t, 1)
		b.Produce(t, topic, numbered("m", 10, 10, 1)...)
		b.Produce(t, twin, numbered("m", 10, 10, 1)...)
		cfg := config(t, b, topic)
		source, out := kafka.NewProducer(cfg), newSink()
		p := pipeline(source, out)
		held := newGate(out, "m-3")
		p.Processor.Handler, p.Processor.Unordered = held.handle, true
		r := run(t, p)
		<-held.entered
		eventually(t, "those before", func() error {
			if got := b.CommittedOffsets(t, cfg.Group, topic)[0]; got != 3 {
				return fmt.Errorf("%d is committed", got)
			}
			return nil
		})
		text := metadataOf(t, b, cfg.Group, topic)
		close(held.open)
		r.stop(t)
		const most = 3
		for name, c := range map[string]struct {
			topic, metadata string
			offset          int64
			dead            string
			handled         int
		}{
			"exhausted":    {metadata: kafka.Tried(text, most, 0), offset: 3, dead: "m-3", handled: 6},
			"not yet":      {metadata: kafka.Tried(text, most-1, 0), offset: 3, handled: 7},
			"another log":  {metadata: kafka.Tried(text, most, 9), offset: 3, handled: 7},
			"moved":        {metadata: kafka.Tried(text, most, 0), offset: 4, handled: 6},
			"recreated":    {topic: twin, metadata: kafka.Tried(text, most, 0), offset: 3, handled: 10},
			"earlier form": {metadata: strings.Replace(kafka.Tried(text, most, 0), "/2 ", "/1 ", 1), offset: 3, handled: 7},
		} {
			t.Run(name, func(t *testing.T) {
				if c.topic == "" {
					c.topic = topic
				}
				cfg := config(t, b, c.topic)
				commitAs(t, b, cfg.Group, c.topic, c.offset, c.metadata)
				out, dead := newSink(), make(chan string, 100)
				p := pipeline(kafka.NewProducer(cfg), out)
				p.Failure = broadway.FailurePolicy{MaxAttempts: most, Action: broadway.ActionDeadLetter, DeadLetter: deadTo(dead)}
				r := run(t, p)
				eventually(t, "all commits", committedToEnd(t, b, cfg.Group, c.topic))
				r.stop(t)
				close(dead)
				given := ""
				for text := range dead {
					given += text
				}
				if given != c.dead || out.distinct() != c.handled {
					t.Errorf("%d handled and %q given up, want %d and %q", out.distinct(), given, c.handled, c.dead)
				}
			})
		}
	})
}
