package broadway_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// A reference becomes full by a message whose handler is slow, while another worker rests:
// nothing more can come for the open batch, and it has no timer, so it is closed.
func TestAnOpenBatchOfAFullReferenceIsClosedBehindASlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := broadwaytest.NewProducer(broadway.Traits{})
		source.NewRef(2)
		release := make(chan struct{})
		var reported atomic.Int64
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source}, Logger: quiet,
			Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: func(_ context.Context, m *broadway.Message) error {
				if string(m.Payload) == "slow" {
					<-release
				}
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 10, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
				reported.Add(int64(len(b.Messages)))
				return nil
			}}},
		})
		stop := background(t, p)
		source.Push("fast")
		time.Sleep(time.Second) // virtual, as all that follow
		source.Push("slow")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := reported.Load(); n != 1 {
			t.Errorf("%d were reported while nothing more could come: %+v", n, p.Stats())
		}
		close(release)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A batcher has a part of the bound in open batches that nothing closes but pressure, when
// another takes so much that this is its share: the sources are asked for nothing, and it
// gets nothing more. So it closes some though nothing comes for it, and the source is asked.
func TestABatcherWhoseShareShrinksClosesItsBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := broadwaytest.NewProducer(broadway.Traits{Rewinds: true})
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source}, MaxUnsettled: 40, Logger: quiet, DrainTimeout: 4 * time.Second,
			Processor: broadway.ProcessorConfig{Concurrency: 1, MaxDemand: 40, Handler: func(_ context.Context, m *broadway.Message) error {
				time.Sleep(time.Millisecond) // so that batchers have looked at what came before
				m.Batcher, m.BatchKey, _ = strings.Cut(string(m.Payload), "/")
				return nil
			}},
			Batchers: []broadway.BatcherConfig{
				{Name: "keyed", Size: 10, Timeout: -1, Reporter: reportNothing},
				{Name: "blocked", Size: 1, Timeout: -1, Reporter: func(ctx context.Context, _ *broadway.Batch) error {
					<-ctx.Done()
					return ctx.Err()
				}},
				{Name: "reserves", Size: 10, Timeout: -1, Reporter: reportNothing},
			},
		})
		stop := background(t, p)
		var payloads []string
		for i := range 14 {
			payloads = append(payloads, "keyed/"+string(rune('a'+i)))
		}
		for range 20 {
			payloads = append(payloads, "blocked")
		}
		source.Push(payloads...)
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, asked := source.Asked(); !asked {
			t.Errorf("the source is not asked: %+v", p.Stats())
		}
		if err := stop(); err == nil {
			t.Error("a blocked reporter was reported as a clean drain")
		}
	})
}

// With order the batches of a shard wait for the one that is reported, though other
// reporters are idle: a batcher whose share waits so is blocked, and the others flow.
func TestABatcherIsBlockedByOneShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := broadwaytest.NewProducer(broadway.Traits{Rewinds: true})
		var reported atomic.Int64
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{source}, MaxUnsettled: 40, Logger: quiet, DrainTimeout: 4 * time.Second,
			Processor: broadway.ProcessorConfig{
				Concurrency: 1, PartitionBy: func(m *broadway.Message) uint64 { return uint64(len(m.Payload)) },
				Handler: func(_ context.Context, m *broadway.Message) error {
					m.Batcher = string(m.Payload)
					return nil
				},
			},
			Batchers: []broadway.BatcherConfig{
				{Name: "flows", Size: 1, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
					reported.Add(int64(len(b.Messages)))
					return nil
				}},
				{Name: "blocked", Size: 1, Concurrency: 2, Timeout: -1, Reporter: func(ctx context.Context, _ *broadway.Batch) error {
					<-ctx.Done()
					return ctx.Err()
				}},
			},
		})
		stop := background(t, p)
		for range 25 {
			source.Push("blocked")
		}
		time.Sleep(time.Second)
		for range 10 {
			source.Push("flows")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := reported.Load(); n != 10 {
			t.Errorf("%d of 10 were reported: %+v", n, p.Stats())
		}
		if err := stop(); err == nil {
			t.Error("a blocked reporter was reported as a clean drain")
		}
	})
}
