package stage

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gobroadway/gobroadway/internal/micro"
)

const chunkSize = 100

// creditOps are the transitions of a ledger, each way round.
func creditOps() []micro.Op {
	c := NewCredit(1000)
	return []micro.Op{
		{Name: "reserve-take-return", Run: func() {
			c.Reserve(chunkSize)
			c.Take(chunkSize)
			c.Return(chunkSize)
		}},
		{Name: "reserve-cancel", Run: func() {
			c.Reserve(chunkSize)
			c.Cancel(chunkSize)
		}},
		{Name: "reserve-alone-take-return", Run: func() {
			c.ReserveAlone(2000)
			c.Take(2000)
			c.Return(2000)
		}},
	}
}

// dispatched is an op that brings one chunk to a dispatcher whose subscribers then ask for what they got: with each, what it
// allocates. Inboxes are emptied, so that the same happens again.
func dispatched(name string, allocs int, d Dispatcher[int], share int, terms ...terms[int]) micro.Op {
	out, err := Options[int]{Dispatcher: d}.newOutlet()
	if err != nil {
		panic(err)
	}
	out.owner = &node{name: "micro", parker: newParker()}
	links := make([]*link[int], len(terms))
	inboxes := make([][]delivery[int], len(terms))
	for i := range terms {
		in := &inlet[int]{owner: &node{parker: newParker()}}
		links[i] = &link[int]{from: out, to: in, terms: terms[i], credit: NewCredit(1 << 30), done: make(chan struct{})}
		if err := out.subscribe(links[i], chunkSize); err != nil {
			panic(err)
		}
	}
	events := make([]int, chunkSize)
	for i := range events {
		events[i] = i
	}
	return micro.Op{Name: name, Allocs: allocs, Run: func() {
		if n, err := out.emit(nil, events, true); n != chunkSize || err != nil {
			panic(fmt.Sprintf("%d events were taken, %v", n, err))
		}
		got := 0
		for i, l := range links {
			inboxes[i] = l.to.take(inboxes[i])
			mine := 0
			for _, d := range inboxes[i] {
				mine += len(d.events)
			}
			if mine > 0 {
				out.ask(l, mine)
			}
			got += mine
		}
		if got != share*chunkSize {
			panic(fmt.Sprintf("%d of %d events were handed on", got, share*chunkSize))
		}
	}}
}

func dispatcherOps() []micro.Op {
	four := make([]terms[int], 4)
	partitions := make([]terms[int], 4)
	for i := range partitions {
		partitions[i] = terms[int]{partition: i, partitioned: true}
	}
	even := func(n int) bool { return n%2 == 0 }
	hash := func(n int) uint64 { return uint64(n) }
	return []micro.Op{
		dispatched("by-demand/1-subscriber", 0, ByDemand[int](), 1, terms[int]{}),
		dispatched("by-demand/4-subscribers", 0, ByDemand[int](), 1, four...),
		dispatched("broadcast/4-subscribers", 0, Broadcast[int](), 4, four...),
		dispatched("broadcast/2-halves", micro.Unheld, Broadcast[int](), 1, terms[int]{selector: even}, terms[int]{selector: func(n int) bool { return !even(n) }}),
		// The parts, and the events in their order: per chunk, whatever its length.
		dispatched("partition/4-partitions", 2, Partition(4, hash), 1, partitions...),
	}
}

func queueOps() []micro.Op {
	chunk := make([]int, chunkSize)
	block := &queue[int]{bound: 1000}
	first := &queue[int]{bound: 1000, overflow: DropFirst}
	last := &queue[int]{bound: 1000, overflow: DropLast}
	for range 10 {
		first.put(chunk)
		last.put(chunk)
	}
	backlog, halves := &queue[int]{bound: 1000}, &queue[int]{bound: 1000}
	for range 5 {
		backlog.put(chunk)
		halves.put(chunk[:chunkSize/2])
	}
	asked := &asks{}
	return []micro.Op{
		{Name: "put-take", Run: func() { block.put(chunk); block.take(chunkSize) }},
		{Name: "put-take-behind-a-backlog", Run: func() { backlog.put(chunk); backlog.take(chunkSize) }},
		{Name: "put-take-across-chunks", Allocs: 1, Run: func() { // what is taken across chunks is one slice
			halves.put(chunk[:chunkSize/2])
			halves.put(chunk[:chunkSize/2])
			halves.take(chunkSize)
		}},
		{Name: "overflow/drop-first", Run: func() { first.put(chunk) }},
		{Name: "overflow/drop-last", Run: func() { last.put(chunk) }},
		{Name: "asks/aim-pop-unpop", Run: func() {
			asked.aim(chunkSize)
			asked.unpop(asked.pop() / 2)
			asked.aim(0)
		}},
	}
}

func BenchmarkCredit(b *testing.B)     { micro.Benchmark(b, creditOps()) }
func BenchmarkDispatcher(b *testing.B) { micro.Benchmark(b, dispatcherOps()) }
func BenchmarkQueue(b *testing.B)      { micro.Benchmark(b, queueOps()) }

func TestAllocations(t *testing.T) {
	micro.Allocations(t, slices.Concat(creditOps(), dispatcherOps(), queueOps()))
}
