package broadway

import (
	"runtime"
	"testing"
	"weak"
)

// Who has a message for long keeps nothing that came after it from the collector, though
// spans are a list.
func TestWhoHasAMessageKeepsNoLaterOnes(t *testing.T) {
	l := &pool{p: &Pipeline{ledger: newLedger(10, 1<<20, nil)}, cfg: ProcessorConfig{Concurrency: 2, MaxDemand: 2}}
	c := newCursor(l)
	fetch := func() weak.Pointer[span] {
		a := &arrival{n: 1, chunks: []*chunk{{messages: []*Message{NewMessage(nil, 1, nil)}}}}
		c.prepare(a)
		c.publish(a)
		return weak.Make(a.span)
	}
	slow, fast := &worker{pool: l}, &worker{pool: l}
	fetch()
	if c.claim(slow) == nil {
		t.Fatal("nothing to claim")
	}
	later := fetch()
	for range 3 {
		fetch()
	}
	for c.claim(fast) != nil {
	}
	if !c.empty() || c.queued() != 0 {
		t.Errorf("%d are queued", c.queued())
	}
	runtime.GC()
	if later.Value() != nil {
		t.Error("a later span is kept")
	}
	fetch()
	if c.empty() || c.claim(fast) == nil {
		t.Error("what came last is not found")
	}
	runtime.KeepAlive(slow)
}

// A worker that was preempted right after its claim has not said that its block is claimed.
// The others rest meanwhile: they would go round, on all cores, and keep it from saying so.
func TestWhatIsClaimedIsNotWaitedFor(t *testing.T) {
	l := &pool{p: &Pipeline{ledger: newLedger(10, 1<<20, nil)}, cfg: ProcessorConfig{Concurrency: 2, MaxDemand: 2}}
	c := newCursor(l)
	a := &arrival{n: 2, chunks: []*chunk{{messages: []*Message{NewMessage(nil, 1, nil), NewMessage(nil, 2, nil)}}}}
	c.prepare(a)
	c.publish(a)
	for i := range a.span.blocks {
		if c.empty() {
			t.Fatal("a message waits, and the queue seems to be empty")
		}
		if m, last := a.span.blocks[i].claim(&worker{pool: l}); m == nil || !last {
			t.Fatal("nothing to claim")
		}
	}
	if !c.empty() {
		t.Error("all is claimed, and workers would go round")
	}
}

// So it is with the sheaves of a lane.
func TestWhoHasAMessageOfALaneKeepsNoLaterOnes(t *testing.T) {
	var l lane
	put := func() weak.Pointer[sheaf] {
		h := new(sheaf)
		h.block.messages = []*Message{NewMessage(nil, 1, nil)}
		l.inbox.push(h)
		return weak.Make(h)
	}
	slow, fast := new(worker), new(worker)
	put()
	later := put()
	if l.pop(slow) == nil || l.pop(fast) == nil {
		t.Fatal("nothing to pop")
	}
	put()
	if l.pop(fast) == nil || l.pop(fast) != nil {
		t.Fatal("not one to pop")
	}
	runtime.GC()
	if later.Value() != nil {
		t.Error("a later sheaf is kept")
	}
	runtime.KeepAlive(slow)
}
