package broadway

import "testing"

// TestWhatIsHandedToARestingWorkerStillWaits: a worker that was handed a lane has not
// taken its messages yet, and rests until it runs. If they did not count as queued, a
// source would be asked for them again and again meanwhile.
func TestWhatIsHandedToARestingWorkerStillWaits(t *testing.T) {
	l := &pool{p: &Pipeline{ledger: newLedger(10, 1<<20, nil)}, cfg: ProcessorConfig{
		Concurrency: 1, MaxDemand: 5, PartitionBy: func(*Message) uint64 { return 7 },
	}}
	d := newLanes(l)
	l.resting.Add(1)
	handed := make(chan *lane)
	go func() { handed <- <-d.ready }()
	messages := []*Message{NewMessage(nil, 1, nil), NewMessage(nil, 2, nil), NewMessage(nil, 3, nil)}
	d.publish(&arrival{n: 3, messages: messages})
	lane := <-handed
	if n := d.queued(); n != 3 {
		t.Errorf("%d messages are queued, want 3", n)
	}
	w := &worker{pool: l, popped: d.tally()}
	d.offered.Add(-1) // as its visit begins
	for lane.pop(w) != nil {
		w.popped.Add(1)
	}
	if n := d.queued(); n != 0 {
		t.Errorf("%d messages are queued, want none", n)
	}
}
