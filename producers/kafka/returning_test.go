package kafka_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// kept says whether the work of n messages was kept.
func kept(source *kafka.Producer, n int64) func() error {
	return func() error {
		if s := source.Stats(); s.Kept < n {
			return fmt.Errorf("%d kept, %d abandoned", s.Kept, s.Abandoned)
		}
		return nil
	}
}

// keyed collects the payloads of each key, in the order in which they were handled.
type keyed struct {
	mu    sync.Mutex
	order map[string][]string
}

func (k *keyed) handle(_ context.Context, m *broadway.Message) error {
	key := string(m.Metadata.(*kafka.Metadata).Key)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.order[key] = append(k.order[key], string(m.Payload))
	return nil
}

// TestRunningWorkOutlastsRebalances: another member joins and leaves while handlers
// run for longer than any drain waits. As the partition returns, nothing comes twice,
// and messages of one key keep their order: those behind the one in its handler were
// given back, and come once it has returned.
func TestRunningWorkOutlastsRebalances(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		const total, keys = 60, 6
		topic, other := b.Topic(t, 1), b.Topic(t, 1)
		b.Produce(t, topic, numbered("m", total, keys, 1)...)
		cfg := config(t, b, topic)
		cfg.RebalanceTimeout = 1500 * time.Millisecond // drains wait for 720 ms
		source, out := kafka.NewProducer(cfg), newSink()
		seen := &keyed{order: map[string][]string{}}
		held := newGate(out, "m-1")
		c := pipeline(source, out)
		c.Processor.Handler = func(ctx context.Context, m *broadway.Message) error {
			if err := held.handle(ctx, m); err != nil {
				return err
			}
			return seen.handle(ctx, m)
		}
		c.Processor.Concurrency, c.MaxUnsettled = 3, 30
		r := run(t, c)
		<-held.entered

		guest := cfg
		guest.Topics = []string{other}
		g := run(t, pipeline(kafka.NewProducer(guest), newSink()))
		eventually(t, "it is kept over a join", kept(source, 1))
		before := source.Stats()
		g.stop(t)
		eventually(t, "it is kept over a leave", kept(source, before.Kept+1))

		close(held.open)
		eventually(t, "all", out.has(total))
		eventually(t, "committed", committedToEnd(t, b, cfg.Group, topic))
		eventually(t, "healthy", healthy(source))
		r.stop(t)
		if s := source.Stats(); out.duplicates() != 0 || s.Abandoned != 0 || s.Repeats != 0 {
			t.Errorf("%d messages were handled twice: %+v", out.duplicates(), s)
		}
		for k := range keys {
			var want []string
			for i := k; i < total; i += keys {
				want = append(want, fmt.Sprint("m-", i))
			}
			if got := seen.order[fmt.Sprint("k", k)]; !slices.Equal(got, want) {
				t.Errorf("key %d was handled in the order %v", k, got)
			}
		}
	})
}

// TestWhatAnEvictedMemberRunsIsKept: the group has thrown it out, and it is back
// before anybody else had its partition.
func TestWhatAnEvictedMemberRunsIsKept(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Topic(t, 1)
		r, g, source, cfg, _ := holding(t, b, topic)
		for round := range int64(2) {
			if err := evict(t.Context(), b, cfg.Group); err != nil {
				t.Fatal(err)
			}
			eventually(t, "kept", kept(source, round+1))
		}
		close(g.open)
		eventually(t, "all commits", committedToEnd(t, b, cfg.Group, topic))
		r.stop(t)
		if s := source.Stats(); g.out.distinct() != heldTotal || g.out.duplicates() != 0 || s.Abandoned != 0 || s.Repeats != 0 {
			t.Errorf("%d messages, %d twice: %+v", g.out.distinct(), g.out.duplicates(), s)
		}
	})
}

// abandons waits until n messages count as abandoned.
func abandons(t testing.TB, source *kafka.Producer, n int64) {
	t.Helper()
	eventually(t, "given up", func() error {
		if s := source.Stats(); s.Abandoned != n {
			return fmt.Errorf("%d abandoned, %d kept", s.Abandoned, s.Kept)
		}
		return nil
	})
}

// TestAMovedCommitEndsWhatIsKept: somebody else has committed for the partition, be it
// back or forth. Then that counts, and what a handler finishes later does not.
func TestAMovedCommitEndsWhatIsKept(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		for name, c := range map[string]struct {
			to    int64
			twice int
		}{
			"back":  {0, held + heldTotal - held - 1 + 1},
			"forth": {held + 40, heldTotal - held - 40},
		} {
			t.Run(name, func(t *testing.T) {
				topic := b.Topic(t, 1)
				r, g, source, cfg, _ := holding(t, b, topic)
				usurp(t, b, cfg.Group, topic, c.to, "")
				abandons(t, source, 1)
				close(g.open)
				eventually(t, "all commits", committedToEnd(t, b, cfg.Group, topic))
				r.stop(t)
				if g.out.distinct() != heldTotal || g.out.duplicates() != c.twice {
					t.Errorf("%d messages, %d twice; want %d", g.out.distinct(), g.out.duplicates(), c.twice)
				}
			})
		}
	})
}

// TestWhatIsKeptOfARecreatedTopicIsDropped: its offsets mean something else now.
func TestWhatIsKeptOfARecreatedTopicIsDropped(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		topic := b.Group(t) // a fresh name
		b.CreateTopic(t, topic, 1)
		r, g, source, cfg, _ := holding(t, b, topic)
		if err := evict(t.Context(), b, cfg.Group); err != nil {
			t.Fatal(err)
		}
		b.DeleteTopic(t, topic)
		b.CreateTopic(t, topic, 1)
		b.Produce(t, topic, numbered("again", heldTotal, heldTotal, 1)...)
		abandons(t, source, 1)
		close(g.open)
		eventually(t, "all", g.out.has(2*heldTotal))
		eventually(t, "all commits", committedToEnd(t, b, cfg.Group, topic))
		r.stop(t)
		b.DeleteTopic(t, topic)
		for _, payload := range g.out.payloads() {
			if strings.HasPrefix(payload, "again") && g.out.seen[payload] != 1 {
				t.Errorf("%q came %d times", payload, g.out.seen[payload])
			}
		}
	})
}
