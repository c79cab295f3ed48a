package broadway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// TestNothingStandsStillBehindWhatHangs is the progress rule while handlers and reporters
// hang for ever. Once all else is quiet, and a worker is idle, a source is asked as long as
// there is credit; and no open batch waits that could be reported, if its source is not
// asked, or has no room. No batch has a timer.
func TestNothingStandsStillBehindWhatHangs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHanging(rt)
		synctest.Test(t, func(t *testing.T) {
			source := broadwaytest.NewProducer(broadway.Traits{Rewinds: h.rewinds})
			if h.limit > 0 {
				source.NewRef(h.limit)
			}
			h.cfg.Producers = []broadway.Producer{source}
			p := build(t, h.cfg)
			stop := background(t, p)
			for _, payloads := range h.steps {
				source.Push(payloads...)
				time.Sleep(30 * time.Second) // of the bubble: whatever waits for so long hangs
				synctest.Wait()
				h.check(rt, p.Stats(), source)
			}
			_ = stop() // what hangs is given back
		})
	})
}

// hangingWorld is a random pipeline of which something hangs.
type hangingWorld struct {
	cfg     broadway.Config
	rewinds bool
	limit   int        // of the source's reference, 0 for none
	steps   [][]string // what is pushed: "handling/batcher/batch key"
}

func drawHanging(rt *rapid.T) *hangingWorld {
	draw := func(name string, of ...int) int { return rapid.SampledFrom(of).Draw(rt, name) }
	h := &hangingWorld{rewinds: draw("rewinds", 0, 1) == 1, limit: draw("limit of the reference", 0, 0, 2, 7)}
	groups := draw("batch keys", 0, 0, 1)
	h.cfg = broadway.Config{
		Logger: quiet, MaxUnsettled: draw("bound", 40, 41, 60, 200), DrainTimeout: 4 * time.Second,
		Processor: broadway.ProcessorConfig{
			Concurrency: draw("workers", 1, 2, 3), MaxDemand: draw("demand", 1, 4, 40),
			Handler: func(ctx context.Context, m *broadway.Message) error {
				what, rest, _ := strings.Cut(string(m.Payload), "/")
				m.Batcher, m.BatchKey, _ = strings.Cut(rest, "/")
				m.BatchKey = m.BatchKey[:len(m.BatchKey)*groups]
				switch what {
				case "hang":
					<-ctx.Done()
				case "slow":
					time.Sleep(time.Second)
				}
				return ctx.Err()
			},
		},
	}
	if keys := draw("keys, if ordered", 0, 1, 2, 5); keys > 0 {
		h.cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(len(m.Payload) % keys) }
	}
	for i := range draw("batchers", 1, 2, 3) {
		h.cfg.Batchers = append(h.cfg.Batchers, broadway.BatcherConfig{
			Name: fmt.Sprint("b", i), Size: draw("size", 1, 3, 10), Timeout: -1, Concurrency: draw("reporters", 1, 1, 2),
			Reporter: hangEvery(int64(draw("every so manyth report hangs", 0, 0, 1, 3))),
		})
	}
	for range draw("steps", 1, 3) {
		var payloads []string
		for i := range draw("messages", 1, 5, 40, 100) {
			what := rapid.SampledFrom([]string{"fast", "fast", "fast", "fast", "slow", "hang"}).Draw(rt, "handling")
			if what == "hang" && i%5 != 0 {
				what = "fast" // or all workers would hang soon
			}
			payloads = append(payloads, fmt.Sprintf("%s/b%d/%s", what, draw("batcher", 0, 1, 2)%len(h.cfg.Batchers), strings.Repeat("k", draw("key", 0, 1, 2, 3, 4))))
		}
		h.steps = append(h.steps, payloads)
	}
	return h
}

// hangEvery is a Reporter of which every so manyth call hangs, none if that is 0.
func hangEvery(every int64) broadway.Reporter {
	var calls atomic.Int64
	return func(ctx context.Context, _ *broadway.Batch) error {
		if n := calls.Add(1); every > 0 && n%every == 0 {
			<-ctx.Done()
		}
		return ctx.Err()
	}
}

func (h *hangingWorld) check(rt *rapid.T, st broadway.Stats, source *broadwaytest.Producer) {
	if st.Processor.Busy == h.cfg.Processor.Concurrency || st.Processor.Queued > 0 {
		return // no worker is idle
	}
	_, asked := source.Asked()
	full := h.limit > 0 && source.Ref().Room() == 0
	stands := slices.ContainsFunc(st.Batchers, func(b broadway.BatcherStats) bool {
		return b.Open > 0 && b.Closed == 0 && b.Reporting == 0
	})
	if stands && (!asked || full) {
		rt.Errorf("an open batch stands still; asked: %v, full: %v, %+v", asked, full, st)
	}
	if !asked && h.limit == 0 && st.Unsettled < st.MaxUnsettled {
		rt.Errorf("the source is not asked: %+v", st)
	}
}
