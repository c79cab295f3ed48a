package broadway_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
)

// ackTimeout is that of the sources here; justBefore and soonAfter are around the
// half of it, from the start of a test.
const (
	ackTimeout = 20 * time.Second
	justBefore = ackTimeout/2 - 10*time.Millisecond
	soonAfter  = ackTimeout/2 + ackTimeout/16
)

// hold is a handler, or a reporter, that keeps what has a "!" until its context
// ends, and fails what has other marks: "r" for a retry in an hour, "u" since
// something is unavailable, "x" for good.
func hold(ctx context.Context, payload []byte) error {
	switch s := string(payload); {
	case strings.Contains(s, "!"):
		<-ctx.Done()
	case strings.Contains(s, "r"):
		return broadway.Retry(errFail, time.Hour)
	case strings.Contains(s, "u"):
		return broadway.Unavailable(errAway)
	case strings.Contains(s, "x"):
		return broadway.Reject(errFail)
	}
	return nil
}

func holdMessage(ctx context.Context, m *broadway.Message) error { return hold(ctx, m.Payload) }

// holdBatch does what its first member says.
func holdBatch(ctx context.Context, b *broadway.Batch) error { return hold(ctx, b.Messages[0].Payload) }

// What waits in the pipeline, wherever that is, is given back once it has waited for
// half of the broker's time-out, and not earlier; what a handler has is not, and is
// told of. It is "a" to "c" that wait, or are reported.
func TestWhatWaitsForHalfOfTheAckTimeoutIsGivenBack(t *testing.T) {
	long := broadway.Backoff{Initial: time.Hour, Max: time.Hour, Jitter: -1}
	one := broadway.ProcessorConfig{Concurrency: 1, Handler: holdMessage}
	batcher := broadway.BatcherConfig{Size: 2, Timeout: -1, Reporter: holdBatch}
	byText := func(m *broadway.Message) uint64 { return uint64(strings.Trim(string(m.Payload), "!rux")[0]) }
	ordered := broadway.ProcessorConfig{Concurrency: 1, Handler: holdMessage, PartitionBy: byText}
	for _, tt := range []struct {
		name     string
		cfg      broadway.Config
		push     string
		released string // by soonAfter
		acked    string
		overdue  int
	}{
		{"behind a busy worker", broadway.Config{Processor: one}, "1! a b", "a b", "", 1},
		{"parked", broadway.Config{Processor: one}, "ar br", "ar br", "", 0},
		{"parked, and the worker is busy", broadway.Config{Processor: one}, "ar 1!", "ar", "", 1},
		{"behind the pool's circuit", broadway.Config{Processor: one, Failure: broadway.FailurePolicy{MaxAttempts: 1, Backoff: long}}, "au b c", "au b c", "", 0},
		{"behind a parked message of its key", broadway.Config{Processor: ordered}, "ar a b", "a ar", "b", 0},
		{"in an open batch", broadway.Config{Processor: one, Batchers: []broadway.BatcherConfig{batcher}}, "a", "", "a", 0},
		{"in an open batch behind a busy reporter", broadway.Config{Processor: handing(func(*broadway.Message) {}),
			Batchers: []broadway.BatcherConfig{batcher}}, "1! 2 a", "a", "", 2},
		{"in closed batches", broadway.Config{Processor: handing(func(*broadway.Message) {}),
			Batchers: []broadway.BatcherConfig{batcher}}, "1! 2 a b c", "a b c", "", 2},
		{"parked by a reporter", broadway.Config{Processor: handing(func(*broadway.Message) {}),
			Batchers: []broadway.BatcherConfig{batcher}}, "ar b", "ar b", "", 0},
		{"behind a reporter's circuit", broadway.Config{Processor: handing(func(*broadway.Message) {}),
			Batchers: []broadway.BatcherConfig{batcher}, Failure: broadway.FailurePolicy{MaxAttempts: 1, Backoff: long}}, "au b c", "au b c", "", 0},
		{"for a dead letter that is not confirmed", broadway.Config{Processor: one,
			Failure: broadway.FailurePolicy{Action: broadway.ActionDeadLetter, DeadLetter: refusing{}}}, "ax b", "ax", "b", 0},
		{"with order, behind a parked member of its key", broadway.Config{
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: nothing, PartitionBy: byText},
			Batchers:  []broadway.BatcherConfig{{Size: 1, Timeout: -1, Reporter: holdBatch}}}, "ar a b", "a ar", "b", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := broadwaytest.NewProducer(broadway.Traits{AckTimeout: ackTimeout})
				tt.cfg.Producers, tt.cfg.Logger = []broadway.Producer{src}, quiet
				p := build(t, tt.cfg)
				src.Push(strings.Fields(tt.push)...)
				stop := background(t, p)
				time.Sleep(justBefore)
				if got := outcome(src, broadwaytest.Released); got != "" {
					t.Errorf("%q was given back early", got)
				}
				time.Sleep(soonAfter - justBefore)
				synctest.Wait()
				if got := outcome(src, broadwaytest.Released); got != tt.released {
					t.Errorf("%q was given back, want %q", got, tt.released)
				}
				if got := outcome(src, broadwaytest.Succeeded); got != tt.acked {
					t.Errorf("%q was acknowledged, want %q", got, tt.acked)
				}
				st := p.Stats()
				if n := len(strings.Fields(tt.released)); st.Recalled != int64(n) || st.Overdue != tt.overdue || st.Unsettled != tt.overdue {
					t.Errorf("recalled %d, overdue %d, unsettled %d; want %d, %d, %d",
						st.Recalled, st.Overdue, st.Unsettled, n, tt.overdue, tt.overdue)
				}
				_ = stop()
			})
		})
	}
}

// outcome is the payloads that were settled so, sorted.
func outcome(src *broadwaytest.Producer, r broadwaytest.Result) string {
	var all []string
	for _, s := range src.Acks.Settled() {
		if s.Result == r {
			all = append(all, s.Payload)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// A handler that has its message for longer is named in the log, once, and what it
// returns then counts as ever; so does the batch that its message gets into.
func TestAHandlerThatRunsBeyondHalfOfTheAckTimeoutIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{AckTimeout: ackTimeout})
		log := &records{}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src}, Logger: slog.New(log),
			Processor: broadway.ProcessorConfig{Concurrency: 2, Handler: func(context.Context, *broadway.Message) error {
				time.Sleep(ackTimeout * 3 / 4)
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 10, Timeout: -1, Reporter: reportNothing}},
		})
		src.Push("a", "b", "c")
		stop := background(t, p)
		time.Sleep(ackTimeout * 3 / 4)
		time.Sleep(ackTimeout / 16)
		synctest.Wait()
		if got := outcome(src, broadwaytest.Succeeded); got != "a b" || outcome(src, broadwaytest.Released) != "c" {
			t.Errorf("%q were acknowledged, want a and b; the calls were %v", got, src.Acks.Calls())
		}
		if n := log.count("handler runs beyond"); n != 2 {
			t.Errorf("%d warnings for two handlers", n)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// records counts what is logged.
type records struct {
	mu  sync.Mutex // protects following field
	all []string
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, rec.Message)
	return nil
}

func (r *records) count(prefix string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range r.all {
		if strings.HasPrefix(text, prefix) {
			n++
		}
	}
	return n
}

// delivered is metadata of a client that had the message before Fetch returned it.
type delivered struct{ at time.Time }

func (d delivered) DeliveredAt() time.Time { return d.at }

// The time that a message was in the client's buffer counts.
func TestTheAckTimeoutCountsFromTheDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{AckTimeout: ackTimeout})
		p := build(t, broadway.Config{Producers: []broadway.Producer{src}, Logger: quiet,
			Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: holdMessage}})
		src.Push("1!")
		stop := background(t, p)
		synctest.Wait()
		src.PushItems(broadwaytest.Item{Payload: []byte("a"), Metadata: delivered{time.Now().Add(-ackTimeout / 4)}})
		time.Sleep(ackTimeout/4 + ackTimeout/16)
		synctest.Wait()
		if got := outcome(src, broadwaytest.Released); got != "a" {
			t.Errorf("%q was given back", got)
		}
		_ = stop()
	})
}

// With PartitionBy a message that is given back takes along what comes behind it in
// its key, also what a handler has: nothing of the key is reported out of order.
func TestWhatIsGivenBackIsNotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{AckTimeout: ackTimeout})
		reports := &broadwaytest.ReportRecorder{}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src}, Logger: quiet,
			Processor: broadway.ProcessorConfig{
				Concurrency: 2, PartitionBy: func(m *broadway.Message) uint64 { return uint64(m.Payload[0]) },
				Handler: func(_ context.Context, m *broadway.Message) error {
					if string(m.Payload) == "a2" {
						time.Sleep(ackTimeout * 3 / 4)
					}
					return nil
				},
			},
			Batchers: []broadway.BatcherConfig{{Size: 1, Timeout: -1, Reporter: func(ctx context.Context, b *broadway.Batch) error {
				if string(b.Messages[0].Payload) == "z" {
					time.Sleep(ackTimeout * 5 / 8) // keeps a1 waiting for longer than half
				}
				return reports.Report(ctx, b)
			}}},
		})
		src.Push("z")
		stop := background(t, p)
		synctest.Wait()
		src.Push("a1", "a2", "a3")
		time.Sleep(ackTimeout * 7 / 8)
		src.Push("a4") // the broker delivered it after all of them
		time.Sleep(time.Second)
		synctest.Wait()
		if got := outcome(src, broadwaytest.Released); got != "a1 a2 a3" {
			t.Errorf("%q were given back, want a1 to a3", got)
		}
		if got := outcome(src, broadwaytest.Succeeded); got != "a4 z" {
			t.Errorf("%q were acknowledged, want z and a4", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// The key of a message that was given back while it waited is free for the next.
func TestTheKeyOfWhatIsGivenBackIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := broadwaytest.NewProducer(broadway.Traits{AckTimeout: ackTimeout})
		p := build(t, broadway.Config{Producers: []broadway.Producer{src}, Logger: quiet, Processor: broadway.ProcessorConfig{
			Concurrency: 1, Handler: holdMessage, PartitionBy: func(m *broadway.Message) uint64 { return uint64(m.Payload[0]) }}})
		src.Push("ar")
		stop := background(t, p)
		time.Sleep(soonAfter)
		src.Push("a")
		synctest.Wait()
		if got := outcome(src, broadwaytest.Succeeded); got != "a" {
			t.Errorf("%q was acknowledged, want a; calls %v", got, src.Acks.Calls())
		}
		if err := stop(); err != nil || p.Stats().SettledTwice != 0 {
			t.Errorf("Run: %v; %d messages were settled twice", err, p.Stats().SettledTwice)
		}
	})
}

// A member that fails its report is reported again, also where nothing but the
// source's time-out closes its batch: were it given back instead, its attempts would
// begin anew each time, and its policy's action never be taken.
func TestAnOpenBatchLeavesTimeToReportAMemberAgain(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			src := broadwaytest.NewProducer(broadway.Traits{AckTimeout: ackTimeout})
			cfg := broadway.Config{
				Producers: []broadway.Producer{src}, Logger: quiet,
				Processor: broadway.ProcessorConfig{Handler: nothing},
				Batchers: []broadway.BatcherConfig{{Size: 100, Timeout: -1, Reporter: func(_ context.Context, b *broadway.Batch) error {
					failures := new(broadway.BatchError)
					for _, m := range b.Messages {
						if string(m.Payload) == "b" {
							failures.Fail(m, errFail)
						}
					}
					return failures.Err()
				}}},
			}
			if ordered {
				cfg.Processor.PartitionBy = func(*broadway.Message) uint64 { return 1 }
			}
			p := build(t, cfg)
			src.Push("a", "b", "c")
			stop := background(t, p)
			time.Sleep(justBefore)
			if ok, failed := outcome(src, broadwaytest.Succeeded), outcome(src, broadwaytest.Failed); ok != "a c" || failed != "b" {
				t.Errorf("ordered=%v: %q succeeded and %q failed", ordered, ok, failed)
			}
			if st := p.Stats(); st.Recalled != 0 || st.Retried != 2 {
				t.Errorf("ordered=%v: recalled %d, retried %d", ordered, st.Recalled, st.Retried)
			}
			_ = stop()
		})
	}
}
