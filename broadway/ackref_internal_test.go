package broadway

import "testing"

// A reference that was stopped grants nothing until every stop has ended, and then
// says so. One whose producer would not learn of that is not stopped.
func TestAStoppedReferenceSaysWhenItGoesOn(t *testing.T) {
	r := NewAckRef(nil, nil, 10)
	if r.stop() || r.Take(1) != 1 {
		t.Error("a reference without OnRoom was stopped")
	}
	told := 0
	r = NewAckRef(nil, nil, 10)
	r.OnRoom(func() { told++ })
	once, twice := r.stop(), r.stop()
	if !once || !twice || r.Take(1) != 0 || r.Room() != 0 {
		t.Error("a stopped reference grants something")
	}
	r.goOn()
	if told != 0 || r.Take(1) != 0 {
		t.Error("the first of two ends has ended both")
	}
	r.goOn()
	if told != 1 || r.Room() != 10 || r.Take(20) != 10 {
		t.Errorf("told %d times, room for %d", told, r.Room())
	}
}
