package broadway

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/internal/micro"
)

// errorOps read the advice in errors, and decide by it.
func errorOps() []micro.Op {
	plain := errors.New("plain")
	wrapped := fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", Retry(plain, time.Second)))
	classified := func(err error, want adviceKind) func() {
		return func() {
			if kind, _ := classify(err); kind != want {
				panic(fmt.Sprint("kind ", kind))
			}
		}
	}
	backoff := Backoff{Initial: 100 * time.Millisecond, Max: 10 * time.Second, Factor: 2, Jitter: 0.2}
	needed := fmt.Errorf("fetch: %w", NeedBytes(1<<20))
	members := make([]*Message, 100)
	for i := range members {
		members[i] = NewMessage(nil, int64(i), nil)
	}
	return []micro.Op{
		// One: errors.As is given the address of what it finds.
		{Name: "classify/no-advice", Allocs: 1, Run: classified(plain, adviseRetry)},
		{Name: "classify/advice", Allocs: 1, Run: classified(Reject(plain), adviseReject)},
		{Name: "classify/advice-below-two-others", Allocs: 1, Run: classified(wrapped, adviseRetryAfter)},
		{Name: "needed-bytes", Allocs: micro.Unheld, Run: func() {
			if n, ok := NeededBytes(needed); !ok || n != 1<<20 {
				panic("not found")
			}
		}},
		{Name: "backoff-delay", Run: func() {
			for attempt := 1; attempt <= 8; attempt++ {
				backoff.Delay(attempt, 0.5)
			}
		}},
		{Name: "batch-error/fail-10-of-100", Allocs: micro.Unheld, Run: func() {
			failures := new(BatchError)
			for i := 0; i < len(members); i += 10 {
				failures.Fail(members[i], plain)
			}
			if failures.Err() == nil {
				panic("none failed")
			}
		}},
		{Name: "batch-error/none-of-100", Run: func() {
			failures := new(BatchError)
			if failures.Err() != nil {
				panic("one failed")
			}
		}},
	}
}

// limitOps check what is claimed, for each message: so they must cost nothing.
func limitOps() []micro.Op {
	limits := MessageLimits{}.withDefaults()
	small := NewMessage(nil, 0, make([]byte, 200))
	small.SetSize(260)
	ref := NewAckRef(nil, nil, 1000)
	return []micro.Op{
		{Name: "message-limits/small", Run: func() {
			if err := limits.exceeded(small); err != nil {
				panic(err)
			}
		}},
		{Name: "ack-ref/take-100-untake-100", Run: func() {
			if ref.Take(100) != 100 {
				panic("not granted")
			}
			ref.Untake(100)
		}},
		{Name: "ack-ref/room", Run: func() { ref.Room() }},
	}
}

func BenchmarkErrors(b *testing.B) { micro.Benchmark(b, errorOps()) }
func BenchmarkLimits(b *testing.B) { micro.Benchmark(b, limitOps()) }

func TestAllocations(t *testing.T) { micro.Allocations(t, slices.Concat(errorOps(), limitOps())) }
