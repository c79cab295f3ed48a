package memory_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

func TestPartitionsShareDemandFairly(t *testing.T) {
	p := memory.New(memory.Config{
		QueueConfig: memory.QueueConfig{Partitions: 4},
		Next:        func(i int) ([]byte, error) { return []byte{byte(i)}, nil },
	})
	count := make([]int, 4)
	for range 30 {
		for _, m := range fetch(t, p, 10) {
			count[partitionOf(m)]++
			settle(t, m)
		}
	}
	for i, n := range count {
		if n < 70 || n > 80 {
			t.Errorf("partition %d got %d of 300", i, n)
		}
	}
}

func TestOneFetchTakesOfEachPartition(t *testing.T) {
	q := memory.NewQueue(memory.QueueConfig{Partitions: 4})
	if err := q.Push(t.Context(), payloads(40)...); err != nil {
		t.Fatal(err)
	}
	count := make([]int, 4)
	for _, m := range fetch(t, memory.New(memory.Config{Queue: q}), 8) {
		count[partitionOf(m)]++
	}
	if !slices.Equal(count, []int{2, 2, 2, 2}) {
		t.Errorf("8 messages were taken as %v", count)
	}
}

func TestPartitionAtItsLimitIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memory.New(memory.Config{
			QueueConfig: memory.QueueConfig{Partitions: 2},
			Next:        func(i int) ([]byte, error) { return []byte{byte(i)}, nil },
		})
		p.Describe(broadway.Limits{MaxUnsettled: 10, MaxUnsettledBytes: plenty, Share: 10})
		var held []*broadway.Message
		for len(held) < 5 {
			for _, m := range fetch(t, p, 1) {
				if partitionOf(m) == 0 {
					held = append(held, m)
				} else {
					settle(t, m)
				}
			}
		}
		for range 20 {
			for _, m := range fetch(t, p, 2) {
				if partitionOf(m) == 0 {
					t.Fatal("partition 0 was served beyond its limit of 5")
				}
				settle(t, m)
			}
		}
		settle(t, held[0])
		if m := fetch(t, p, 2)[0]; partitionOf(m) != 0 {
			t.Error("partition 0 is not served after it has room again")
		}
	})
}

// A partition whose reference grants nothing, as it is full or stopped, does not use
// up what was asked for: the others are served, and no more bytes are asked for.
func TestAPartitionThatIsFullLeavesTheDemandToOthers(t *testing.T) {
	queue := memory.NewQueue(memory.QueueConfig{Partitions: 2})
	p := memory.New(memory.Config{Queue: queue})
	for range 6 {
		if err := queue.Push(t.Context(), []byte("abc")); err != nil {
			t.Fatal(err)
		}
	}
	d := broadway.Demand{Messages: 1, Bytes: 3}
	first, err := p.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	first[0].Ref().SetLimit(1)
	for range 3 {
		got, err := p.Fetch(t.Context(), d)
		if err != nil || len(got) != 1 || got[0].Ref() == first[0].Ref() {
			t.Fatalf("%d messages, %v; want one of the other partition", len(got), err)
		}
	}
}
