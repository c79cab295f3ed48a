package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// payloads makes n distinct payloads.
func payloads(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, "m%d", i)
	}
	return out
}

// number is which of payloads m is.
func number(m *broadway.Message) int {
	n, err := strconv.Atoi(strings.TrimPrefix(string(m.Payload), "m"))
	if err != nil {
		panic(err)
	}
	return n
}

// run makes a pipeline of cfg and runs it to its end.
func run(t *testing.T, cfg broadway.Config) *broadway.Pipeline {
	t.Helper()
	p, err := broadway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryMessagePassesEveryStageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		source := memory.New(memory.Config{Payloads: payloads(n)})
		var handled atomic.Int64
		var mu sync.Mutex
		seen := map[string]int{}
		p := run(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{
				Concurrency: 4,
				Handler: func(_ context.Context, m *broadway.Message) error {
					handled.Add(1)
					m.Value = strings.ToUpper(string(m.Payload))
					return nil
				},
			},
			Batchers: []broadway.BatcherConfig{{
				Concurrency: 2,
				Reporter: func(_ context.Context, b *broadway.Batch) error {
					mu.Lock()
					defer mu.Unlock()
					for _, m := range b.Messages {
						seen[m.Value.(string)]++
					}
					return nil
				},
			}},
		})
		if handled.Load() != n || len(seen) != n {
			t.Fatalf("handled %d, reported %d distinct, want %d", handled.Load(), len(seen), n)
		}
		st := p.Stats()
		if st.Succeeded != n || st.Unsettled != 0 || st.State != broadway.StateStopped {
			t.Fatalf("stats: %+v", st)
		}
		if c := source.Counts(); c.Succeeded != n {
			t.Fatalf("source counts: %+v", c)
		}
	})
}

func TestWithoutBatchersMessagesSettleAfterTheirProcessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := memory.New(memory.Config{Payloads: payloads(1000)})
		p := run(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: func(context.Context, *broadway.Message) error { return nil }},
		})
		if st := p.Stats(); st.Succeeded != 1000 {
			t.Fatalf("stats: %+v", st)
		}
	})
}

// TestFailuresAreContained seeds every way in which a handler can fail, and wants
// exactly those messages to fail.
func TestFailuresAreContained(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprintf("ordered=%v", ordered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 500
				outcomes := map[int]memory.Outcome{}
				source := memory.New(memory.Config{Payloads: payloads(n), QueueConfig: memory.QueueConfig{
					Settled: func(o memory.Outcome, m *broadway.Message) { outcomes[number(m)] = o },
				}})
				cfg := broadway.Config{
					Producers:    []broadway.Producer{source},
					Logger:       slog.New(slog.DiscardHandler),
					MaxUnsettled: 4 * n, // so that every retry may be parked
					Processor: broadway.ProcessorConfig{
						Concurrency: 3,
						Timeout:     time.Second,
						Handler: func(ctx context.Context, m *broadway.Message) error {
							switch number(m) % 10 {
							case 1:
								panic("boom")
							case 2:
								runtime.Goexit()
							case 3:
								return errors.New("plain")
							case 4:
								<-ctx.Done()
								return nil
							case 5:
								return broadway.Reject(errors.New("never"))
							case 6:
								if m.Attempt < 2 {
									return broadway.Retry(errors.New("later"), time.Minute)
								}
							}
							return nil
						},
					},
				}
				if ordered {
					cfg.Processor.PartitionBy = func(m *broadway.Message) uint64 { return uint64(number(m) % 7) }
				}
				p := run(t, cfg)
				st := p.Stats()
				for seq, o := range outcomes {
					if failed := seq%10 >= 1 && seq%10 <= 5; failed != (o == memory.Dropped) {
						t.Errorf("message %d: %v", seq, o)
					}
				}
				if st.Failed != n/2 || st.Succeeded != n/2 || st.Released != 0 {
					t.Fatalf("stats: %+v", st)
				}
				// Four kinds are tried three times, one is tried twice.
				if want := int64(n / 10 * (4*2 + 1)); st.Retried != want {
					t.Fatalf("retried %d, want %d", st.Retried, want)
				}
			})
		})
	}
}
