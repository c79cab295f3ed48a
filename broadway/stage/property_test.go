package stage_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/broadway/stage"
)

// tagged is an event that says which stage made it, and as which.
type tagged struct{ by, seq int }

// mill is one stage of a random topology, and what it saw and made. Its slices are
// its own goroutine's until Run returns.
type mill struct {
	id       int
	made     int
	got      []tagged
	dispatch int // 0 by demand, 1 broadcast, 2 partition
	buffer   int
	pace     time.Duration
	factor   int // events made of each that came
	sinks    []*mill

	demand  atomic.Int64 // MaxDemand of all subscriptions to it
	settled atomic.Int64 // events of it that its sinks handled

	source   stage.Source[tagged]
	sink     stage.Sink[tagged]
	stage    stage.Stage
	buffered func() int
}

func drawMill(t *rapid.T, id int) *mill {
	return &mill{
		id:       id,
		dispatch: rapid.IntRange(0, 2).Draw(t, "dispatch"),
		buffer:   rapid.IntRange(1, 30).Draw(t, "buffer"),
		pace:     time.Duration(rapid.IntRange(0, 3).Draw(t, "pace")) * time.Millisecond,
		factor:   rapid.IntRange(0, 3).Draw(t, "factor"),
	}
}

func (m *mill) options(sinks int) stage.Options[tagged] {
	o := stage.Options[tagged]{Buffer: m.buffer}
	switch m.dispatch {
	case 1:
		o.Dispatcher = stage.Broadcast[tagged]()
	case 2:
		o.Dispatcher = stage.Partition(sinks, func(e tagged) uint64 { return uint64(e.seq * 7) })
	}
	return o
}

func (m *mill) make(n int) []tagged {
	events := make([]tagged, n)
	for i := range events {
		events[i] = tagged{m.id, m.made}
		m.made++
	}
	return events
}

// fetch makes up to limit events, in answers as short as it likes.
func (m *mill) fetch(limit, short int, violation *atomic.Value) func(context.Context, int) ([]tagged, error) {
	return func(_ context.Context, demand int) ([]tagged, error) {
		time.Sleep(m.pace)
		n := min(demand, limit-m.made)
		if short > 0 && n > short {
			n = short
		}
		// With partitions, what a slow one holds is asked for once more.
		if out := int64(m.made+n) - m.settled.Load(); m.dispatch == 0 && out > m.demand.Load() {
			violation.Store(fmt.Sprintf("producer %d has %d events unhandled, with a demand of %d", m.id, out, m.demand.Load()))
		}
		events := m.make(n)
		if m.made == limit {
			return events, io.EOF
		}
		return events, nil
	}
}

func (m *mill) take(events []tagged, all map[int]*mill, violation *atomic.Value) {
	time.Sleep(m.pace)
	m.got = append(m.got, events...)
	for _, e := range events {
		all[e.by].settled.Add(1)
	}
	if m.buffered == nil {
		return
	}
	if n, bound := m.buffered(), m.buffer*max(1, len(m.sinks)); n > bound {
		violation.Store(fmt.Sprintf("stage %d holds %d events, with a bound of %d", m.id, n, bound))
	}
}

// Random N:M topologies of up to four layers, with random demands, buffers,
// dispatchers and speeds: everything arrives, once, in order, within the bounds,
// and Run ends.
func TestRandomTopologies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) { checkTopology(t, rt) })
	})
}

func checkTopology(t *testing.T, rt *rapid.T) {
	var layers [][]*mill
	all := map[int]*mill{}
	for i := range rapid.IntRange(2, 4).Draw(rt, "layers") {
		layers = append(layers, nil)
		for range rapid.IntRange(1, 3).Draw(rt, "width") {
			m := drawMill(rt, len(all))
			all[m.id] = m
			layers[i] = append(layers[i], m)
		}
	}
	var violation atomic.Value
	for i, layer := range layers {
		for _, m := range layer {
			if i < len(layers)-1 {
				m.sinks = layers[i+1]
			}
			build(rt, m, i == 0, all, &violation)
		}
	}
	var stages []stage.Stage
	for _, layer := range layers {
		for _, m := range layer {
			connect(rt, m)
			stages = append(stages, m.stage)
		}
	}
	if err := stage.Run(t.Context(), rapid.Permutation(stages).Draw(rt, "order")...); err != nil {
		rt.Fatalf("Run: %v", err)
	}
	if v := violation.Load(); v != nil {
		rt.Fatal(v)
	}
	for _, m := range all {
		checkArrivals(rt, m)
	}
}

func build(rt *rapid.T, m *mill, first bool, all map[int]*mill, violation *atomic.Value) {
	name := fmt.Sprint(m.id)
	switch {
	case first:
		limit, short := rapid.IntRange(1, 300).Draw(rt, "limit"), rapid.IntRange(0, 5).Draw(rt, "short")
		p := must(stage.NewProducer(name, m.fetch(limit, short, violation), m.options(len(m.sinks))))
		m.source, m.stage, m.buffered = p, p, p.Buffered
	case m.sinks == nil:
		c := must(stage.NewConsumer(name, func(_ context.Context, events []tagged) error {
			m.take(events, all, violation)
			return nil
		}))
		m.sink, m.stage = c, c
	default:
		s := must(stage.NewProducerConsumer(name, func(_ context.Context, events []tagged) ([]tagged, error) {
			m.take(events, all, violation)
			return m.make(len(events) * m.factor), nil
		}, m.options(len(m.sinks))))
		m.source, m.sink, m.stage, m.buffered = s, s, s, s.Buffered
	}
}

func connect(rt *rapid.T, m *mill) {
	for i, sink := range m.sinks {
		most := rapid.IntRange(1, 20).Draw(rt, "max")
		s := stage.Subscription{MaxDemand: most, MinDemand: rapid.IntRange(0, most-1).Draw(rt, "min")}
		m.demand.Add(int64(most))
		var err error
		if m.dispatch == 2 {
			_, err = stage.SubscribePartition(sink.sink, m.source, s, i)
		} else {
			_, err = stage.Subscribe(sink.sink, m.source, s)
		}
		if err != nil {
			rt.Fatal(err)
		}
	}
}

// checkArrivals checks what became of the events that m made.
func checkArrivals(rt *rapid.T, m *mill) {
	if m.sinks == nil {
		return
	}
	var arrived []int
	for i, sink := range m.sinks {
		var own []int
		for _, e := range sink.got {
			if e.by != m.id {
				continue
			}
			own = append(own, e.seq)
			if m.dispatch == 2 && uint64(e.seq*7)%uint64(len(m.sinks)) != uint64(i) {
				rt.Fatalf("event %v came to partition %d", e, i)
			}
		}
		if !slices.IsSorted(own) {
			rt.Fatalf("stage %d got the events of %d out of order: %v", sink.id, m.id, own)
		}
		if m.dispatch == 1 && !slices.Equal(own, seq(0, m.made)) {
			rt.Fatalf("stage %d got %v of the broadcast of %d events", sink.id, own, m.made)
		}
		arrived = append(arrived, own...)
	}
	if m.dispatch == 1 {
		return
	}
	slices.Sort(arrived)
	if !slices.Equal(arrived, seq(0, m.made)) {
		rt.Fatalf("of %d events of %d, %v arrived", m.made, m.id, arrived)
	}
}
