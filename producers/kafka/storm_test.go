package kafka_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// ledger is what really was handled, by partition and offset: the test's own
// truth, that no code under test writes to.
type ledger struct {
	mu      sync.Mutex
	handled []map[int64]int
	lowest  []int64 // everything below was handled
}

func newLedger(partitions int) *ledger {
	l := &ledger{handled: make([]map[int64]int, partitions), lowest: make([]int64, partitions)}
	for i := range l.handled {
		l.handled[i] = map[int64]int{}
	}
	return l
}

func (l *ledger) handle(_ context.Context, m *broadway.Message) error {
	meta := m.Metadata.(*kafka.Metadata)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := meta.Partition
	l.handled[p][meta.Offset]++
	for l.handled[p][l.lowest[p]] > 0 {
		l.lowest[p]++
	}
	return nil
}

// above says which partition of a commit lies above the lowest offset that was
// not handled.
func (l *ledger) above(committed []int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, offset := range committed {
		if offset > l.lowest[p] {
			return fmt.Errorf("partition %d: %d is committed, and %d was not handled", p, offset, l.lowest[p])
		}
	}
	return nil
}

func (l *ledger) count() (distinct, twice int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, handled := range l.handled {
		distinct += len(handled)
		for _, n := range handled {
			twice += n - 1
		}
	}
	return distinct, twice
}

// The rebalance storm: members join and leave while messages flow. Nothing is
// lost, and at no sample does the group's commit, as another client reads it, lie
// above what was handled. When members leave in good order nothing is abandoned,
// and what comes twice is what the producers say cannot be committed: settled
// above something that was given back.
func TestMembersComeAndGoWhileMessagesFlow(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		twice, stats := storm(t, b, func(guest *running) { guest.stop(t) })
		if stats.Abandoned != 0 || int64(twice) > stats.Repeats {
			t.Errorf("%d messages were handled twice; abandoned %d, repeats %d", twice, stats.Abandoned, stats.Repeats)
		}
	})
}

func TestMembersDieWhileMessagesFlow(t *testing.T) {
	on(t, func(t *testing.T, b *brokers.KafkaBroker) {
		storm(t, b, func(guest *running) {
			guest.Abort() // as near to a crash as one process gets
			<-guest.done
		})
	})
}

// storm says how many messages were handled more than once, and what all members
// counted together.
func storm(t *testing.T, b *brokers.KafkaBroker, leave func(guest *running)) (twice int, sum kafka.Stats) {
	const total, partitions = 100_000, 8
	topic := b.Topic(t, partitions)
	cfg := config(t, b, topic)
	truth := newLedger(partitions)
	var members []*kafka.Producer
	member := func(t testing.TB) *running {
		source := kafka.NewProducer(cfg)
		members = append(members, source)
		return run(t, broadway.Config{
			Producers: []broadway.Producer{source},
			Processor: broadway.ProcessorConfig{Handler: truth.handle, Concurrency: 8, MaxDemand: 50},
			Batchers: []broadway.BatcherConfig{{
				Size: 50, Timeout: 100 * time.Millisecond,
				Reporter: func(context.Context, *broadway.Batch) error { return nil },
			}},
			Failure: broadway.FailurePolicy{Action: broadway.ActionStopPartition},
		})
	}
	stayer := member(t)

	var work sync.WaitGroup
	done := make(chan struct{})
	work.Go(func() {
		for sent := 0; sent < total; sent += 5000 {
			b.Produce(t, topic, numbered(fmt.Sprint(sent), 5000, 1000, partitions)...)
		}
	})
	work.Go(func() {
		for round := 0; ; round++ {
			guest := member(t)
			eventually(t, "the guest works", func() error {
				if guest.Stats().Succeeded == 0 && !isClosed(done) {
					return fmt.Errorf("nothing yet in round %d", round)
				}
				return nil
			})
			leave(guest)
			if isClosed(done) {
				return
			}
		}
	})
	samples := 0
	work.Go(func() {
		for ; !isClosed(done); samples++ {
			if err := truth.above(b.CommittedOffsets(t, cfg.Group, topic)); err != nil {
				t.Errorf("sample %d: %v", samples, err)
			}
		}
	})
	eventually(t, "everything is handled", func() error {
		if distinct, _ := truth.count(); distinct != total {
			return fmt.Errorf("%d of %d", distinct, total)
		}
		return nil
	})
	close(done)
	work.Wait()
	eventually(t, "everything is committed", committedToEnd(t, b, cfg.Group, topic))
	stayer.stop(t)
	_, twice = truth.count()
	for _, m := range members {
		sum.Generations += m.Stats().Generations
		sum.Abandoned += m.Stats().Abandoned
		sum.Repeats += m.Stats().Repeats
	}
	t.Logf("%d samples, %d handled twice, all members together: %+v", samples, twice, sum)
	return twice, sum
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
