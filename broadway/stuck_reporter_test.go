package broadway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// A stuck reporter is replaced, no member of its batch settles before it returns
// (with RetryStuck at once), and with too many of them only their batcher stops.
func TestAReporterThatDoesNotReturnIsReplaced(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		for _, retry := range []bool{false, true} {
			t.Run(fmt.Sprintf("ordered=%v retry=%v", ordered, retry), func(t *testing.T) {
				h := &hanging{}
				cfg := broadway.Config{
					Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
						m.Value = "made"
						return nil
					}},
					Batchers: []broadway.BatcherConfig{{Size: 2, Concurrency: 2, Timeout: 100 * time.Millisecond, ReportTimeout: time.Second, RetryStuck: retry, Reporter: h.report}},
					Failure:  broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond}},
				}
				if ordered {
					cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(m.Payload[0]) }
					cfg.Batchers[0].KeyBy = func(m *broadway.Message) string { return string(m.Payload[:1]) }
				}
				behaviour(t, cfg, func(t *testing.T, p *pipe) {
					p.source.Push("a1", "a!")
					time.Sleep(3 * time.Second)
					if !retry {
						p.source.Push("a2", "a3")
					}
					for n := range 10 {
						p.source.Push(fmt.Sprint("b", n))
					}
					time.Sleep(3 * time.Second)
					synctest.Wait()
					st := p.pipeline.Stats()
					settled := st.Succeeded
					want := int64(10)
					if retry || !ordered {
						want = 12 // its own members, or those that need not wait
					}
					if settled != want || len(st.Stuck) != 1 || st.Stuck[0].Messages != 2 || st.Batchers[0].Reporting != 0 {
						t.Errorf("%d settled, want %d; stuck %+v, %d at work", settled, want, st.Stuck, st.Batchers[0].Reporting)
					}
					h.let("a!")
					total := 14
					if retry {
						total = 12
					}
					all := p.settled(total)
					for payload, s := range all {
						if s.Result != broadwaytest.Succeeded || s.Value != "made" && s.Value != "late" {
							t.Errorf("%s: %v, value %v", payload, s.Result, s.Value)
						}
					}
					synctest.Wait()
					if st := p.pipeline.Stats(); st.Late != 1 || st.SettledTwice != 0 || len(st.Stuck) != 0 {
						t.Errorf("%+v", st)
					}
				})
			})
		}
	}
}

func TestTooManyStuckReportersStopTheirBatcher(t *testing.T) {
	h := &hanging{}
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
			m.Batcher = string(m.Payload[:1])
			return nil
		}},
		Batchers: []broadway.BatcherConfig{
			{Name: "a", Size: 1, Concurrency: 1, ReportTimeout: time.Second, MaxStuck: -1, Reporter: h.report},
			{Name: "b", Size: 1, Concurrency: 1},
		},
		Failure:      broadway.FailurePolicy{MaxAttempts: 2, Backoff: broadway.Backoff{Initial: time.Millisecond}},
		MaxUnsettled: 20,
	}, func(t *testing.T, p *pipe) {
		p.source.Push("a!", "a1", "b1", "b2")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		st := p.pipeline.Stats()
		if st.Succeeded != 2 || len(st.Stuck) != 1 || st.Err == nil || !strings.Contains(st.Err.Error(), "of a do not return") {
			t.Errorf("%d succeeded, stuck %+v, err %v", st.Succeeded, st.Stuck, st.Err)
		}
		if a := st.Batchers[0]; a.Closed != 1 || a.Reporting != 0 {
			t.Errorf("of a %d batches wait and %d are handed out: its reporter has none to spare", a.Closed, a.Reporting)
		}
		h.let("a!")
		wantResults(t, p.settled(4), "a!:succeeded a1:succeeded b1:succeeded b2:succeeded")
	})
}
