package acknowledgers_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"pgregory.net/rapid"
)

// broker is what is on the other end of the wire, as RabbitMQ does it: its list
// of unacknowledged tags, and a channel that it closes for a tag not in it.
type broker struct {
	unacked []uint64
	got     map[uint64]acknowledgers.Verdict
}

func newBroker() *broker { return &broker{got: map[uint64]acknowledgers.Verdict{}} }

func (b *broker) deliver(tag uint64) { b.unacked = append(b.unacked, tag) }

func (b *broker) receive(s acknowledgers.Settlement) error {
	i := slices.Index(b.unacked, s.Tag)
	if i < 0 {
		return fmt.Errorf("406 unknown delivery tag %d (%v)", s.Tag, s)
	}
	if s.Multiple && (s.Verdict == acknowledgers.Rejected || s.Verdict == acknowledgers.Requeued) {
		return fmt.Errorf("%v: basic.reject has no multiple", s)
	}
	covered := []uint64{s.Tag}
	if s.Multiple {
		covered = slices.Clone(b.unacked[:i+1])
	}
	for _, tag := range covered {
		b.got[tag] = s.Verdict
	}
	b.unacked = slices.DeleteFunc(b.unacked, func(tag uint64) bool { return slices.Contains(covered, tag) })
	return nil
}

// settles drives a ledger beside a naive model of it, and says at once when a
// frame breaks a promise.
type settles struct {
	ledger  acknowledgers.Deliveries
	broker  *broker
	settled map[uint64]acknowledgers.Verdict
	open    []uint64
	pending int
}

func newSettles() *settles {
	return &settles{broker: newBroker(), settled: map[uint64]acknowledgers.Verdict{}}
}

func (s *settles) deliver(tag uint64) error {
	s.broker.deliver(tag)
	s.open = append(s.open, tag)
	return s.ledger.Deliver(tag)
}

func (s *settles) settle(tag uint64, v acknowledgers.Verdict) error {
	i := slices.Index(s.open, tag)
	if got := s.ledger.Settle(tag, v); got != (i >= 0) {
		return fmt.Errorf("Settle(%d) = %t, open: %t", tag, got, i >= 0)
	}
	if i >= 0 {
		s.open = slices.Delete(s.open, i, i+1)
		s.settled[tag] = v
		s.pending++
	}
	return s.counts()
}

func (s *settles) flush() error {
	for _, frame := range s.ledger.Flush(nil) {
		if err := s.broker.receive(frame); err != nil {
			return err
		}
	}
	s.pending = 0
	for tag, v := range s.broker.got {
		if s.settled[tag] != v {
			return fmt.Errorf("the broker was told %v of %d, which was settled as %v", v, tag, s.settled[tag])
		}
	}
	if len(s.broker.got) != len(s.settled) || !slices.Equal(s.broker.unacked, s.open) {
		return fmt.Errorf("the broker holds %v as unacknowledged, open are %v", s.broker.unacked, s.open)
	}
	return s.counts()
}

func (s *settles) counts() error {
	if s.ledger.Open() != len(s.open) || s.ledger.Pending() != s.pending {
		return fmt.Errorf("open %d, pending %d; the model has %d and %d",
			s.ledger.Open(), s.ledger.Pending(), len(s.open), s.pending)
	}
	oldest, ok := s.ledger.Oldest()
	if ok != (len(s.open) > 0) || ok && oldest != s.open[0] {
		return fmt.Errorf("oldest %d (%t), open are %v", oldest, ok, s.open)
	}
	return nil
}

func TestDeliveriesFrames(t *testing.T) {
	const (
		ack     = acknowledgers.Acked
		reject  = acknowledgers.Rejected
		requeue = acknowledgers.Requeued
		back    = acknowledgers.Returned
	)
	type verdicts map[uint64]acknowledgers.Verdict
	tests := []struct {
		name   string
		tags   uint64
		rounds []verdicts
		want   [][]string
	}{
		{"nothing settled, nothing sent", 3, []verdicts{{}}, [][]string{nil}},
		{"one", 3, []verdicts{{1: ack}}, [][]string{{"acked 1"}}},
		{"a prefix in one frame", 4, []verdicts{{3: ack, 1: ack, 2: ack}}, [][]string{{"acked <=3"}}},
		{"beyond an open one singly", 4, []verdicts{{1: ack, 3: ack, 4: ack}}, [][]string{{"acked 1", "acked 3", "acked 4"}}},
		{"the gap closes", 4, []verdicts{{1: ack, 3: ack}, {2: ack, 4: ack}}, [][]string{{"acked 1", "acked 3"}, {"acked <=4"}}},
		{"a multiple never ends on a sent tag", 3, []verdicts{{3: ack}, {1: ack, 2: ack}}, [][]string{{"acked 3"}, {"acked <=2"}}},
		{"the last open one", 3, []verdicts{{2: ack, 3: ack}, {1: ack}}, [][]string{{"acked 2", "acked 3"}, {"acked 1"}}},
		{"a rejection splits a run", 5, []verdicts{{1: ack, 2: ack, 3: reject, 4: ack, 5: ack}}, [][]string{{"acked <=2", "rejected 3", "acked <=5"}}},
		{"rejections have no multiple", 3, []verdicts{{1: reject, 2: requeue, 3: requeue}}, [][]string{{"rejected 1", "requeued 2", "requeued 3"}}},
		{"a sent rejection splits nothing", 4, []verdicts{{2: reject}, {1: ack, 3: ack, 4: ack}}, [][]string{{"rejected 2"}, {"acked <=4"}}},
		{"returns have a multiple", 4, []verdicts{{1: ack, 2: back, 3: back, 4: back}}, [][]string{{"acked 1", "returned <=4"}}},
		{"acks after returns", 4, []verdicts{{1: back, 2: back, 3: ack, 4: ack}}, [][]string{{"returned <=2", "acked <=4"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d acknowledgers.Deliveries
			for tag := uint64(1); tag <= tt.tags; tag++ {
				if err := d.Deliver(tag); err != nil {
					t.Fatal(err)
				}
			}
			for round, verdicts := range tt.rounds {
				for tag, v := range verdicts {
					if !d.Settle(tag, v) {
						t.Fatalf("tag %d could not be settled", tag)
					}
				}
				var got []string
				for _, frame := range d.Flush(nil) {
					got = append(got, frame.String())
				}
				if !slices.Equal(got, tt.want[round]) {
					t.Errorf("round %d sends %q, want %q", round, got, tt.want[round])
				}
			}
		})
	}
}

func TestDeliveriesSettleOnce(t *testing.T) {
	var d acknowledgers.Deliveries
	if d.Settle(1, acknowledgers.Acked) {
		t.Error("a tag was settled that was never delivered")
	}
	for _, tag := range []uint64{1, 2} {
		if err := d.Deliver(tag); err != nil {
			t.Fatal(err)
		}
	}
	if !d.Settle(1, acknowledgers.Acked) || d.Settle(1, acknowledgers.Rejected) {
		t.Error("the second verdict on a tag must not count")
	}
	if got := d.Flush(nil); len(got) != 1 || got[0].Verdict != acknowledgers.Acked {
		t.Errorf("sent %v, want the first verdict", got)
	}
	if d.Settle(1, acknowledgers.Acked) {
		t.Error("a tag was settled again after it was sent")
	}
	if got := d.Flush(nil); len(got) != 0 {
		t.Errorf("sent %v with nothing pending", got)
	}
}

func TestDeliveriesRefuseTagsThatDoNotRise(t *testing.T) {
	var d acknowledgers.Deliveries
	for _, step := range []struct {
		tag uint64
		ok  bool
	}{{0, false}, {1, true}, {1, false}, {7, true}, {6, false}, {1 << 63, true}} {
		if err := d.Deliver(step.tag); (err == nil) != step.ok {
			t.Errorf("Deliver(%d) = %v", step.tag, err)
		}
	}
	if !d.Settle(7, acknowledgers.Acked) || !d.Settle(1<<63, acknowledgers.Acked) || d.Settle(3, acknowledgers.Acked) {
		t.Error("tags with gaps are not told apart")
	}
}

func TestDeliveriesRefuseUnknownVerdicts(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a verdict that does not exist was accepted")
		}
	}()
	new(acknowledgers.Deliveries).Settle(1, acknowledgers.Returned+1)
}

// A delivery that stays open must not make the ledger grow with all that is
// settled beyond it.
func TestDeliveriesMemoryBehindAnOpenDelivery(t *testing.T) {
	var d acknowledgers.Deliveries
	var frames []acknowledgers.Settlement
	if err := d.Deliver(1); err != nil {
		t.Fatal(err)
	}
	tag := uint64(1)
	step := func() {
		tag++
		if err := d.Deliver(tag); err != nil {
			t.Fatal(err)
		}
		d.Settle(tag, acknowledgers.Acked)
		frames = d.Flush(frames[:0])
		if len(frames) != 1 || frames[0].Multiple {
			t.Fatalf("sent %v beyond an open delivery", frames)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 200_000 {
		step()
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were allocated for 200,000 deliveries beyond an open one", grown)
	}
	if d.Open() != 1 {
		t.Errorf("open %d, want 1", d.Open())
	}
}

func TestDeliveriesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSettles()
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				next += rapid.Uint64Range(1, 3).Draw(t, "gap")
				if err := s.deliver(next); err != nil {
					t.Fatal(err)
				}
			},
			"settle": func(t *rapid.T) {
				tag := rapid.Uint64Range(0, next+1).Draw(t, "tag")
				if len(s.open) > 0 && rapid.Bool().Draw(t, "known") {
					tag = rapid.SampledFrom(s.open).Draw(t, "open")
				}
				v := rapid.SampledFrom([]acknowledgers.Verdict{
					acknowledgers.Acked, acknowledgers.Acked, acknowledgers.Rejected, acknowledgers.Requeued, acknowledgers.Returned,
				}).Draw(t, "verdict")
				if err := s.settle(tag, v); err != nil {
					t.Fatal(err)
				}
			},
			"flush": func(t *rapid.T) {
				if err := s.flush(); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

func FuzzDeliveries(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0x41, 0x81, 1, 0xc0, 1})
	f.Add([]byte("deliver, settle and flush in an order that nobody thought of"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		s := newSettles()
		next := uint64(0)
		for _, op := range ops {
			var err error
			switch arg := int(op >> 2); {
			case op%4 == 0:
				next += 1 + uint64(arg%2)
				err = s.deliver(next)
			case op%4 == 1:
				err = s.flush()
			case len(s.open) > 0:
				v := acknowledgers.Acked + acknowledgers.Verdict(arg%7)
				if v > acknowledgers.Returned {
					v = acknowledgers.Acked
				}
				err = s.settle(s.open[(arg/7)%len(s.open)], v)
			}
			if err != nil {
				t.Fatalf("after op %#x: %v", op, err)
			}
		}
		for len(s.open) > 0 {
			if err := s.settle(s.open[0], acknowledgers.Acked); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		if len(s.broker.unacked) != 0 {
			t.Fatalf("all is settled, and the broker still holds %v", s.broker.unacked)
		}
	})
}
