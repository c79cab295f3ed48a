package kafka_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// TestABlockedBatcherStopsOnlyItsPartitions: of four partitions two feed a batcher
// that reports nothing. The others flow on, beyond the bound; nothing begins anew, and
// once it reports everything has come once.
func TestABlockedBatcherStopsOnlyItsPartitions(t *testing.T) {
	const n, bound = 4000, 200
	f := newFake(t, kfake.SeedTopics(4, "t"))
	f.produce(t, "t", "m", 0, n, 4)
	source, out, unblock := kafka.NewProducer(f.config(t, "t")), newSink(), make(chan struct{})
	tell := func(b *broadway.Batch) error {
		for _, m := range b.Messages {
			if err := out.handle(t.Context(), m); err != nil {
				return err
			}
		}
		return nil
	}
	r := run(t, broadway.Config{
		Producers: []broadway.Producer{source}, MaxUnsettled: bound,
		Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: func(_ context.Context, m *broadway.Message) error {
			m.Batcher = "flows"
			if m.Metadata.(*kafka.Metadata).Partition < 2 {
				m.Batcher = "blocked"
			}
			return nil
		}},
		Batchers: []broadway.BatcherConfig{
			{Name: "flows", Size: 10, Reporter: func(_ context.Context, b *broadway.Batch) error { return tell(b) }},
			{Name: "blocked", Size: 10, Reporter: func(ctx context.Context, b *broadway.Batch) error {
				select {
				case <-unblock:
					return tell(b)
				case <-ctx.Done():
					return ctx.Err()
				}
			}},
		},
		Failure: broadway.FailurePolicy{Action: broadway.ActionStopPartition},
	})
	eventually(t, "the partitions that feed the other batcher", out.has(n/2))
	if st := r.Stats(); st.Batchers[1].Held == 0 || st.Released > 0 {
		t.Errorf("the blocked batcher holds %d, %d were given back", st.Batchers[1].Held, st.Released)
	}
	close(unblock)
	eventually(t, "all messages", out.has(n))
	eventually(t, "all commits", f.wantCommitted("t", n/4, n/4, n/4, n/4))
	r.stop(t)
	if st := source.Stats(); st.Rewinds != 0 {
		t.Errorf("%+v", st)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	for payload, times := range out.seen {
		if times != 1 {
			t.Fatal(fmt.Sprint(payload, " came ", times, " times"))
		}
	}
}
