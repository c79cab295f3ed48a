package broadway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/broadway/broadwaytest"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// like is a source with other traits.
type like struct {
	*memory.Producer
	rewinds bool
	counts  bool          // what is given back
	timeout time.Duration // for acknowledging
	by      func(*broadway.Message) uint64
	pool    *broadway.MessagePool[memory.Metadata] // to make its messages of, or nil
	ahead   int                                    // its prefetch
}

// Fetch makes the messages anew in memory that is used again, in slabs of seven.
func (l like) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	messages, err := l.Producer.Fetch(ctx, d)
	if l.pool == nil || err != nil {
		return messages, err
	}
	for from := 0; from < len(messages); {
		to := from + 1
		for to < len(messages) && to-from < 7 && messages[to].Ref() == messages[from].Ref() {
			to++
		}
		made, metadata := l.pool.Get(to - from)
		for i, m := range made {
			old := messages[from+i]
			metadata[i] = *old.Metadata.(*memory.Metadata)
			m.Init(old.Ref(), old.Seq(), old.Payload)
			m.SetSize(old.Size())
			m.Attempt, m.Redelivered = old.Attempt, old.Redelivered
			if m.Value != nil || m.BatchKey != "" || m.Batcher != "" || m.Err() != nil || m.BatchMode != broadway.Bulk || m.Metadata != &metadata[i] {
				return nil, broadway.Fatal(fmt.Errorf("a message that is used again is not as new: %+v", m))
			}
		}
		copy(messages[from:to], made)
		from = to
	}
	return messages, nil
}

func (l like) Describe(limits broadway.Limits) broadway.Traits {
	t := l.Producer.Describe(limits)
	t.Rewinds, t.CountsReturns = l.rewinds, l.counts
	t.AckTimeout, t.PartitionBy, t.Prefetch = l.timeout, l.by, l.ahead
	return t
}

// byPartition orders by partition.
func byPartition(m *broadway.Message) uint64 {
	return uint64(m.Metadata.(*memory.Metadata).Partition)
}

// marks are the sequence numbers that came out, by partition.
type marks struct {
	mu  sync.Mutex // protects following field
	all map[int][]int64
}

func (k *marks) add(messages ...*broadway.Message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range messages {
		i := m.Metadata.(*memory.Metadata).Partition
		k.all[i] = append(k.all[i], m.Seq())
	}
}

func (k *marks) count(partition int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.all[partition])
}

// ordered says whether each partition's came in order, each once.
func (k *marks) ordered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, seqs := range k.all {
		for i := 1; i < len(seqs); i++ {
			if seqs[i] <= seqs[i-1] {
				return false
			}
		}
	}
	return true
}

// A batcher that is blocked for a while, on a source whose messages must keep their
// places: the partitions that bring something for it stop once it has its share, and
// those that do not flow on, far beyond the bound. Nothing is given back, and
// afterwards all go on, in order.
func TestABlockedBatcherStopsOnlyItsPartitions(t *testing.T) {
	for name, kind := range map[string]like{
		"ordered": {by: byPartition}, "rewinds": {rewinds: true}, "both, as Kafka is": {rewinds: true, by: byPartition},
		"counts what is given back": {counts: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const bound, partitions = 400, 6
				kind.Producer = memory.New(memory.Config{QueueConfig: memory.QueueConfig{Partitions: partitions}, Next: func(i int) ([]byte, error) {
					time.Sleep(5 * time.Millisecond) // the pool is faster than the source
					return []byte{byte(i)}, nil
				}})
				out, unblock := &marks{all: map[int][]int64{}}, make(chan struct{})
				p := build(t, broadway.Config{
					Producers: []broadway.Producer{kind}, MaxUnsettled: bound, Logger: quiet,
					Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(_ context.Context, m *broadway.Message) error {
						m.Batcher = "flows"
						if byPartition(m) < 4 {
							m.Batcher = "blocked"
						}
						return nil
					}},
					Batchers: []broadway.BatcherConfig{
						{Name: "flows", Size: 10, Reporter: func(_ context.Context, b *broadway.Batch) error { out.add(b.Messages...); return nil }},
						{Name: "blocked", Size: 10, Reporter: func(ctx context.Context, b *broadway.Batch) error {
							select {
							case <-unblock:
								out.add(b.Messages...)
								return nil
							case <-ctx.Done():
								return ctx.Err()
							}
						}},
					},
				})
				stop := background(t, p)
				time.Sleep(time.Minute)
				synctest.Wait()
				for i := range partitions {
					if n := out.count(i); i >= 4 && n < 5*bound || i < 4 && n > 0 {
						t.Errorf("partition %d: %d were reported", i, n)
					}
				}
				st := p.Stats()
				if b := st.Batchers[1]; b.HighestHeld < bound/4 || b.HighestHeld > bound*3/4 || st.Released > 0 {
					t.Errorf("the blocked batcher held %d, %d were given back", b.HighestHeld, st.Released)
				}
				close(unblock)
				time.Sleep(time.Minute)
				synctest.Wait()
				for i := range partitions {
					if n := out.count(i); n < bound {
						t.Errorf("partition %d: %d were reported after all", i, n)
					}
				}
				if kind.by != nil && !out.ordered() {
					t.Error("out of order")
				}
				if err := stop(); err != nil || p.Stats().Released > 0 {
					t.Errorf("Run: %v, %d were given back", err, p.Stats().Released)
				}
			})
		})
	}
}

// More than a quarter of the bound would wait for another attempt. The partition of what
// fails stops, and the others flow; no attempt is lost, so that all of them are given up in
// the end; with order nothing overtakes what waits.
func TestBeyondAQuarterThatWaitsForAnotherAttempt(t *testing.T) {
	for _, tt := range []struct {
		name       string
		kind       like
		stage      string
		partitions int
	}{
		{"the pool, without order", like{}, "processor", 4},
		{"the pool, with order", like{by: byPartition}, "processor", 4},
		{"the pool, as Kafka without order", like{rewinds: true}, "processor", 4},
		{"the pool, as Kafka", like{rewinds: true, by: byNumber}, "processor", 4},
		{"reporters, without order", like{}, "reporter", 4},
		{"reporters, with order", like{by: byPartition}, "reporter", 4},
		{"reporters, as Kafka", like{rewinds: true, by: byNumber}, "reporter", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const bound, attempts = 200, 3
				next := make([]int, tt.partitions)
				tt.kind.Producer = memory.New(memory.Config{QueueConfig: memory.QueueConfig{Partitions: tt.partitions}, Next: func(i int) ([]byte, error) {
					time.Sleep(5 * time.Millisecond)
					next[i]++
					return fmt.Append(nil, next[i]), nil
				}})
				out, given := &marks{all: map[int][]int64{}}, &marks{all: map[int][]int64{}}
				fails := func(m *broadway.Message, stage string) bool { return stage == tt.stage && byPartition(m) == 0 }
				p := build(t, broadway.Config{
					Producers: []broadway.Producer{tt.kind}, MaxUnsettled: bound, Logger: quiet,
					Processor: broadway.ProcessorConfig{Concurrency: 4, Handler: func(_ context.Context, m *broadway.Message) error {
						if fails(m, "processor") {
							return errFail
						}
						return nil
					}},
					Batchers: []broadway.BatcherConfig{{Size: 10, Reporter: func(_ context.Context, b *broadway.Batch) error {
						failed := new(broadway.BatchError)
						for _, m := range b.Messages {
							if fails(m, "reporter") {
								failed.Fail(m, errFail)
								continue
							}
							out.add(m)
						}
						return failed.Err()
					}}},
					Failure: broadway.FailurePolicy{
						MaxAttempts: attempts, Backoff: broadway.Backoff{Initial: 30 * time.Second, Max: 30 * time.Second, Jitter: -1},
						Action: broadway.ActionDeadLetter, DeadLetter: letterFunc(func(m *broadway.Message) { given.add(m) }),
					},
				})
				stop := background(t, p)
				for range 60 {
					time.Sleep(time.Second)
					synctest.Wait()
					if st := p.Stats(); st.Processor.Parked > bound/2+4*11 {
						t.Errorf("%d of %d are parked", st.Processor.Parked, bound)
					}
				}
				if st := p.Stats(); st.Released > 0 || st.Processor.Parked < bound/4-10 && tt.kind.by == nil {
					t.Errorf("%d were given back, %d are parked", st.Released, st.Processor.Parked)
				}
				for i := 1; i < tt.partitions; i++ {
					if n := out.count(i); n < 5*bound {
						t.Errorf("partition %d: %d were reported beside what fails", i, n)
					}
				}
				time.Sleep(time.Minute)
				if n := given.count(0); n == 0 {
					t.Error("nothing was given up after its attempts")
				}
				if tt.kind.by != nil && !out.ordered() {
					t.Error("out of order")
				}
				_ = stop()
			})
		})
	}
}

// byNumber makes a key of each message, but orders the partitions that do not fail.
func byNumber(m *broadway.Message) uint64 {
	if byPartition(m) > 0 {
		return byPartition(m)
	}
	return 100 + uint64(m.Seq())
}

// letterFunc is a DeadLetterer that tells f of each message.
type letterFunc func(*broadway.Message)

func (f letterFunc) DeadLetter(_ context.Context, messages []*broadway.Message) error {
	for _, m := range messages {
		f(m)
	}
	return nil
}

// A source of one reference that knows no OnRoom, with order: beyond a quarter that
// waits for another attempt it is not asked, nothing is given back, and nothing of a
// key overtakes what waits.
func TestASourceIsNotAskedWhileTooMuchOfItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound, n = 40, 200
		src := broadwaytest.NewProducer(broadway.Traits{})
		for i := range n {
			src.Push(fmt.Sprintf("k%d.%d", i%20, i/20))
		}
		src.End()
		handled := &handledBy{}
		p := build(t, broadway.Config{
			Producers: []broadway.Producer{src}, MaxUnsettled: bound, Logger: quiet,
			Processor: broadway.ProcessorConfig{
				Concurrency: 4, PartitionBy: func(m *broadway.Message) uint64 {
					var key, i uint64
					_, _ = fmt.Sscanf(string(m.Payload), "k%d.%d", &key, &i)
					return key
				},
				Handler: func(_ context.Context, m *broadway.Message) error {
					if m.Attempt < 3 {
						return errFail
					}
					handled.add(m)
					return nil
				},
			},
			Failure: broadway.FailurePolicy{Backoff: broadway.Backoff{Initial: time.Second, Max: time.Second, Jitter: -1}},
		})
		if err := p.Run(t.Context()); err != nil || p.Stats().Released > 0 || p.Stats().Succeeded != n {
			t.Errorf("Run: %v; %+v", err, p.Stats())
		}
		byKey := map[string][]string{}
		for _, payload := range handled.all() {
			key, _, _ := strings.Cut(payload, ".")
			byKey[key] = append(byKey[key], payload)
		}
		for key, got := range byKey {
			if !slices.IsSorted(got) {
				t.Errorf("%s: %v", key, got)
			}
		}
	})
}
