package broadway

import (
	"context"
	"math"
	"testing"
	"time"
)

// idleSource is a producer that is never asked.
type idleSource struct{ traits Traits }

func (idleSource) Fetch(context.Context, Demand) ([]*Message, error) { panic("asked") }
func (idleSource) Close() error                                      { return nil }
func (s idleSource) Describe(Limits) Traits                          { return s.traits }

// decides is a batch policy that has no objections.
type decides struct{}

func (decides) Open(time.Time) BatchState { return decides{} }
func (decides) Fits(*Message) bool        { return true }
func (decides) Add(*Message) bool         { return false }
func (decides) Deadline() time.Time       { return time.Time{} }

// patient is a batcher that has looked at some messages without batch key, of shards
// 0, 1, … in turn, and waits.
func patient(t *testing.T, cfg BatcherConfig, ordered bool, looked int) *batcher {
	t.Helper()
	cfg.Reporter = func(context.Context, *Batch) error { return nil }
	processor := ProcessorConfig{Handler: func(context.Context, *Message) error { return nil }}
	if ordered {
		processor.PartitionBy = func(m *Message) uint64 { return m.lane }
	}
	p, err := New(Config{
		Producers: []Producer{idleSource{Traits{AckTimeout: time.Hour}}},
		Processor: processor, Batchers: []BatcherConfig{cfg},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := p.batchers[0]
	b.timer = time.NewTimer(time.Hour)
	t.Cleanup(func() { b.timer.Stop() })
	for n := 0; n < looked; n++ {
		b.join(arrived(p, time.Now()), time.Now())
	}
	b.box.asleep.Store(true)
	b.patience.Store(b.mayMiss())
	return b
}

// arrived is a message that was fetched at a time.
func arrived(p *Pipeline, at time.Time) *Message {
	m := NewMessage(NewAckRef(nil, nil, 0), 0, nil)
	s := p.sources[0]
	m.chunk = &chunk{source: s, ref: m.ref, due: s.due(m, at)}
	return m
}

// woken says whether the batcher was woken since it was asked last.
func woken(b *batcher) bool {
	select {
	case <-b.box.wake:
		b.box.asleep.Store(true)
		return true
	default:
		return false
	}
}

// What cannot do more than fill a batch that is open does not wake the batcher, before one
// may be full.
func TestABatcherMissesWhatCannotFillABatch(t *testing.T) {
	own := &block{}
	for _, c := range []struct {
		name    string
		cfg     BatcherConfig
		ordered bool
		looked  int
		misses  int64
	}{
		{"nothing is open", BatcherConfig{Size: 10}, false, 0, 0},
		{"one message is open", BatcherConfig{Size: 10}, false, 1, 9},
		{"all but one", BatcherConfig{Size: 10}, false, 9, 1},
		{"full ones were closed", BatcherConfig{Size: 10}, false, 13, 7},
		{"without time-out", BatcherConfig{Size: 10, Timeout: -1}, false, 2, 8},
		{"a limit of bytes", BatcherConfig{Size: 10, Bytes: 1000}, false, 2, 0},
		{"a policy", BatcherConfig{Size: 10, Policy: decides{}}, false, 2, 0},
		{"one shard of two is open", BatcherConfig{Size: 10, Concurrency: 2}, true, 2, 0},
		{"ordered, one shard", BatcherConfig{Size: 10, Concurrency: 1}, true, 2, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := patient(t, c.cfg, c.ordered, c.looked)
			if got := b.patience.Load(); got != c.misses {
				t.Fatalf("the batcher may miss %d messages, want %d", got, c.misses)
			}
			var by runs
			put := func(place int) {
				m := arrived(b.p, time.Now())
				b.told(by.put(&b.box, m, own, place), m.ref, b.neededBy(m))
			}
			own.messages = make([]*Message, 1) // so that each message is a run of its own
			for n := int64(1); n < c.misses; n++ {
				if put(0); woken(b) {
					t.Fatalf("message %d has woken it", n)
				}
			}
			if put(0); !woken(b) {
				t.Fatal("the last one did not wake it")
			}
		})
	}
}

// A run that may come to hold enough to fill a batch wakes the batcher when it begins: what
// is added to it later tells nobody.
func TestABatcherCountsWithAllThatARunMayHold(t *testing.T) {
	b := patient(t, BatcherConfig{Size: 10}, false, 1)
	var by runs
	put := func(own *block, place int) {
		m := arrived(b.p, time.Now())
		b.told(by.put(&b.box, m, own, place), m.ref, b.neededBy(m))
	}
	three, six := &block{messages: make([]*Message, 3)}, &block{messages: make([]*Message, 6)}
	for place := range 3 {
		if put(three, place); woken(b) {
			t.Fatal("woken by a run of 3, and 6 more are missing")
		}
	}
	if put(six, 0); !woken(b) {
		t.Fatal("not woken by a run of 6, and with it the batch may be full")
	}
}

// What has to be decided on at once wakes the batcher.
func TestABatcherDoesNotMissWhatIsUrgent(t *testing.T) {
	for name, change := range map[string]func(*batcher, *Message){
		"a batch key":         func(_ *batcher, m *Message) { m.BatchKey = "k" },
		"flush":               func(_ *batcher, m *Message) { m.BatchMode = Flush },
		"a reference drains":  func(_ *batcher, m *Message) { m.ref.Drain() },
		"messages recalled":   func(b *batcher, _ *Message) { b.p.recalling.Store(1) },
		"its time is at hand": func(b *batcher, m *Message) { *m = *arrived(b.p, time.Now().Add(-15*time.Minute)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := patient(t, BatcherConfig{Size: 10}, false, 1)
			m := arrived(b.p, time.Now())
			change(b, m)
			var by runs
			b.told(by.put(&b.box, m, nil, 0), m.ref, b.neededBy(m))
			if !woken(b) {
				t.Error("the batcher was not woken")
			}
		})
	}
}

// A batcher that has its share closes a batch, or its sources would wait for ever: also if it
// came to that by what follows in a run, which it was told of before.
func TestABatcherDoesNotMissThatItHasItsShare(t *testing.T) {
	cfg := BatcherConfig{Name: "one", Size: 10, Reporter: func(context.Context, *Batch) error { return nil }}
	other := cfg
	other.Name = "other"
	p, err := New(Config{
		Producers: []Producer{idleSource{}}, Batchers: []BatcherConfig{cfg, other},
		Processor: ProcessorConfig{Handler: func(context.Context, *Message) error { return nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, ref := p.batchers[0], NewAckRef(nil, nil, 0)
	b.box.asleep.Store(true)
	b.patience.Store(50)
	if b.told(0, ref, math.MaxInt64); woken(b) {
		t.Fatal("woken, and it holds nothing")
	}
	b.held.Store(b.share())
	if b.told(0, ref, math.MaxInt64); !woken(b) {
		t.Error("not woken, and it has its share")
	}
}

// A reference that is full gets nothing more until something of it settles: so a batch may
// have to close for its sake once nothing else is to come.
func TestABatcherDoesNotMissAFullReference(t *testing.T) {
	b := patient(t, BatcherConfig{Size: 10}, false, 1)
	full, free := NewAckRef(nil, nil, 1), NewAckRef(nil, nil, 2)
	for _, ref := range []*AckRef{full, free} {
		ref.bind(b.p)
		if ref.Take(1) != 1 {
			t.Fatal("nothing granted")
		}
	}
	if full.Take(1) != 0 {
		t.Fatal("it is not full")
	}
	for _, c := range []struct {
		ref    *AckRef
		rests  int32
		wakens bool
	}{{full, 0, false}, {free, 1, false}, {full, 1, true}} {
		b.p.pool.resting.Store(c.rests)
		if b.told(1, c.ref, math.MaxInt64); woken(b) != c.wakens {
			t.Errorf("with %d workers that rest, full %v: woken is %v", c.rests, c.ref == full, !c.wakens)
		}
	}
}
