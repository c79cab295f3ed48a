package broadway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/batchers"
	"github.com/gobroadway/gobroadway/broadway"
)

// handing is a pool of one worker whose handler changes each message.
func handing(f func(*broadway.Message)) broadway.ProcessorConfig {
	return broadway.ProcessorConfig{Concurrency: 1, Handler: func(_ context.Context, m *broadway.Message) error {
		f(m)
		return nil
	}}
}

// B-042: messages go to the batcher that they name, each with a size of its own.
func TestBatchersHaveSizesOfTheirOwn(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) { m.Batcher = parity(m) }),
		Batchers:  []broadway.BatcherConfig{{Name: "odd", Size: 10, Timeout: -1}, {Name: "even", Size: 5, Timeout: -1}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 40)...)
		p.settled(40)
		sizes := map[string][]int{}
		for _, b := range p.reports.Batches() {
			sizes[b.Batcher] = append(sizes[b.Batcher], len(b.Payloads))
			if b.Trigger != broadway.TriggerSize {
				t.Errorf("%s was closed by %s", b, b.Trigger)
			}
		}
		if !slices.Equal(sizes["odd"], []int{10, 10}) || !slices.Equal(sizes["even"], []int{5, 5, 5, 5}) {
			t.Errorf("sizes %v", sizes)
		}
	})
}

// B-043: a message with batch mode Flush closes the batch that it belongs to,
// and no other. (Broadway closes a batch after the whole chunk that the message
// came in; here the message itself is the last.)
func TestAFlushClosesItsOwnBatch(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) {
			m.Batcher = parity(m)
			if string(m.Payload) == "5" {
				m.BatchMode = broadway.Flush
			}
		}),
		Batchers: []broadway.BatcherConfig{{Name: "odd"}, {Name: "even", Timeout: time.Minute}},
	}, func(t *testing.T, p *pipe) {
		start := time.Now()
		p.source.Push(numbers(1, 5)...)
		wantSet(t, p.batches(1), "odd[1 3 5] flush")
		if waited := time.Since(start); waited > 0 {
			t.Errorf("flushed after %v", waited)
		}
		wantSet(t, p.batches(2), "odd[1 3 5] flush", "even[2 4] timeout")
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("the other batch was closed after %v", waited)
		}
	})
}

// B-044: batches hold one key only.
func TestKeysNeverMix(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) { m.BatchKey = parity(m) }),
		Batchers:  []broadway.BatcherConfig{{Size: 2}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 8)...)
		wantSet(t, p.batches(4), "default[1 3] size", "default[2 4] size", "default[5 7] size", "default[6 8] size")
		for _, b := range p.reports.Batches() {
			if want := map[bool]string{true: "odd", false: "even"}[strings.ContainsAny(b.Payloads[0], "1357")]; b.Key != want {
				t.Errorf("%s has the key %q", b, b.Key)
			}
		}
	})
}

// B-045: messages of several keys that settle together all settle.
func TestEachKeySettles(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) { m.BatchKey, m.BatchMode = parity(m), broadway.Flush }),
		Batchers:  []broadway.BatcherConfig{{Concurrency: 2}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push("1", "2")
		wantSet(t, p.batches(2), "default[1] flush", "default[2] flush")
		wantResults(t, p.settled(2), "1:succeeded 2:succeeded")
	})
}

// KeyBy is for messages whose handler chose no key.
func TestKeyByFillsInForTheHandler(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) {
			if string(m.Payload) == "2" {
				m.BatchKey = "mine"
			}
		}),
		Batchers: []broadway.BatcherConfig{{KeyBy: parity, Timeout: time.Second}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 4)...)
		var got []string
		for i := range p.batches(3) {
			b := p.reports.Batches()[i]
			got = append(got, b.Key+" "+b.String())
		}
		wantSet(t, got, "odd default[1 3]", "mine default[2]", "even default[4]")
	})
}

// B-046, B-047: a policy of the user's own decides when a batch is complete, and
// starts anew for each batch; the size remains a limit.
func TestAPolicyOfTheUsersOwnClosesBatches(t *testing.T) {
	endOfRun := batchers.Func(0, func(sum int, m *broadway.Message) (int, bool) {
		sum += len(m.Payload)
		return sum, sum >= 6
	})
	behaviour(t, broadway.Config{
		Processor: handing(func(*broadway.Message) {}),
		Batchers:  []broadway.BatcherConfig{{Policy: endOfRun, Size: 4, Timeout: time.Second}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push("aaa", "bbb", "cccccccc", "d", "e", "f", "g", "h", "i")
		want := []string{"default[aaa bbb] policy", "default[cccccccc] policy", "default[d e f g] size", "default[h i] timeout"}
		if got := p.batches(4); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

// B-048: where a flush and the policy meet, the batch is closed once.
func TestAFlushAndAPolicyCloseOneBatch(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) {
			if !odd(m) {
				m.BatchMode = broadway.Flush
			}
		}),
		Batchers: []broadway.BatcherConfig{{Policy: batchers.Count(2)}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 4)...)
		want := []string{"default[1 2] flush", "default[3 4] flush"}
		if got := p.batches(2); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

// A policy's deadline closes a batch before its Timeout does, and both count from
// the batch's first message.
func TestAPolicyMayHaveADeadline(t *testing.T) {
	behaviour(t, broadway.Config{
		Batchers: []broadway.BatcherConfig{{Policy: batchers.Age(time.Second), Timeout: time.Minute}},
	}, func(t *testing.T, p *pipe) {
		start := time.Now()
		p.source.Push("1")
		time.Sleep(600 * time.Millisecond)
		p.source.Push("2")
		wantSet(t, p.batches(1), "default[1 2] timeout")
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("closed after %v", waited)
		}
	})
}

// Bytes is a hard cap, except for a message that is larger by itself.
func TestBytesCapABatch(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(*broadway.Message) {}),
		Batchers:  []broadway.BatcherConfig{{Bytes: 4, Timeout: time.Second}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push("aa", "bb", "c", "dddddddd", "e")
		want := []string{"default[aa bb] bytes", "default[c] bytes", "default[dddddddd] bytes", "default[e] timeout"}
		if got := p.batches(4); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		for _, b := range p.reports.Batches() {
			if want := int64(len(strings.Join(b.Payloads, ""))); b.Bytes != want {
				t.Errorf("%s is said to weigh %d bytes", b, b.Bytes)
			}
		}
	})
}

// B-053: with batch mode Flush each message is a batch, and waits for nothing.
func TestFlushedMessagesDoNotWait(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) { m.BatchMode = broadway.Flush }),
		Batchers:  []broadway.BatcherConfig{{Size: 2, Timeout: time.Minute}},
	}, func(t *testing.T, p *pipe) {
		start := time.Now()
		p.source.Push(numbers(1, 5)...)
		p.settled(5)
		var want []string
		for _, n := range numbers(1, 5) {
			want = append(want, "default["+n+"] flush")
		}
		if got := p.batches(5); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		if waited := time.Since(start); waited > 0 {
			t.Errorf("settled after %v", waited)
		}
	})
}

// B-054: without, they are batches by size, and the rest by timeout.
func TestBulkMessagesFillBatches(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(*broadway.Message) {}),
		Batchers:  []broadway.BatcherConfig{{Size: 2, Timeout: time.Minute}},
	}, func(t *testing.T, p *pipe) {
		start := time.Now()
		p.source.Push(numbers(1, 5)...)
		got := p.batches(3)
		if want := []string{"default[1 2] size", "default[3 4] size", "default[5] timeout"}; !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("the last batch was closed after %v", waited)
		}
	})
}

// B-049: with PartitionBy the messages of one value are handled and reported in
// order, with several workers and reporters of random pace; different values at
// once.
func TestPartitionsKeepTheirOrder(t *testing.T) {
	const n = 200
	var mu sync.Mutex
	handled := map[string][]string{}
	atOnce, most := 0, 0
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{
			Concurrency: 2,
			PartitionBy: func(m *broadway.Message) uint64 { return uint64(len(parity(m))) },
			Handler: func(_ context.Context, m *broadway.Message) error {
				mu.Lock()
				handled[parity(m)] = append(handled[parity(m)], string(m.Payload))
				atOnce++
				most = max(most, atOnce)
				mu.Unlock()
				time.Sleep(rand.N(10 * time.Millisecond))
				mu.Lock()
				atOnce--
				mu.Unlock()
				return nil
			},
		},
		Batchers: []broadway.BatcherConfig{{Concurrency: 2, Size: 7, Timeout: 50 * time.Millisecond}},
	}, func(t *testing.T, p *pipe) {
		p.reports.Next = func(context.Context, *broadway.Batch) error {
			time.Sleep(rand.N(20 * time.Millisecond))
			return nil
		}
		p.source.Push(numbers(1, n)...)
		p.settled(n)
		reported := map[string][]string{}
		for _, b := range p.reports.Batches() {
			for _, payload := range b.Payloads {
				key := map[bool]string{true: "odd", false: "even"}[slices.Contains(handled["odd"], payload)]
				reported[key] = append(reported[key], payload)
			}
		}
		for _, key := range []string{"odd", "even"} {
			first := map[string]int{"odd": 1, "even": 2}[key]
			for i, payload := range handled[key] {
				if want := fmt.Sprint(first + 2*i); payload != want || reported[key][i] != want {
					t.Fatalf("%s: in place %d %s was handled, %s reported, want %s", key, i, payload, reported[key][i], want)
				}
			}
		}
		if most != 2 {
			t.Errorf("at most %d messages were handled at once, want 2", most)
		}
	})
}

// B-077: a message that is lost on the way leaves no hole in its batch.
func TestAFailedMessageLeavesNoHole(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: broadway.ProcessorConfig{Concurrency: 1, Handler: failing("3", broadway.Reject(errNo))},
		Batchers:  []broadway.BatcherConfig{{Size: 2, Timeout: -1}},
	}, func(t *testing.T, p *pipe) {
		p.source.Push(numbers(1, 5)...)
		if got := p.batches(2); !slices.Equal(got, []string{"default[1 2] size", "default[4 5] size"}) {
			t.Errorf("got %v", got)
		}
		p.settled(5)
	})
}

// A.13: several keys are open at once, each with a timeout of its own.
func TestEachKeyHasItsOwnTimeout(t *testing.T) {
	behaviour(t, broadway.Config{
		Processor: handing(func(m *broadway.Message) { m.BatchKey = parity(m) }),
		Batchers:  []broadway.BatcherConfig{{Timeout: time.Second}},
	}, func(t *testing.T, p *pipe) {
		start := time.Now()
		p.source.Push("1")
		time.Sleep(600 * time.Millisecond)
		p.source.Push("2")
		p.batches(1)
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("the first key was closed after %v", waited)
		}
		wantSet(t, p.batches(2), "default[1] timeout", "default[2] timeout")
		if waited := time.Since(start); waited != 1600*time.Millisecond {
			t.Errorf("the second key was closed after %v", waited)
		}
		synctest.Wait()
		if b := p.pipeline.Stats().Batchers[0]; b.Held != 0 || b.Open != 0 || b.Closed != 0 {
			t.Errorf("an idle batcher has %+v", b)
		}
	})
}
