package kafka

import (
	"math"
	"testing"
)

// One line for each line of the table at [marks].
func TestMarksAreInherited(t *testing.T) {
	const base = 100
	by := writer{7, 3}
	for name, c := range map[string]struct{ found, want marks }{
		"none":         {marks{closed: true}, marks{closed: true}},
		"closed":       {marks{closed: true, starts: 1, reach: 120}, marks{closed: true, starts: 1, reach: 120}},
		"first crash":  {marks{}, marks{closed: true, starts: 1, goal: 600}},
		"second crash": {marks{starts: 1, reach: 120, goal: 590}, marks{closed: true, starts: 2, until: 120, goal: 590}},
		"no reach":     {marks{starts: 1}, marks{closed: true, starts: 2, until: base + stride}},
		"before one ran": {marks{starts: 2, until: 120},
			marks{closed: true, starts: 3, until: 120}},
		"in a trial": {marks{starts: 2, until: 120, trial: 100, attempt: 1, running: true},
			marks{closed: true, starts: 3, until: 120, trial: 100, attempt: 1, lost: [mostLost]writer{by}}},
		"in another trial": {marks{starts: 3, until: 120, trial: 100, attempt: 2, running: true, lost: [mostLost]writer{{1, 1}}},
			marks{closed: true, starts: 4, until: 120, trial: 100, attempt: 2, lost: [mostLost]writer{by, {1, 1}}}},
		"closed in a trial": {marks{closed: true, starts: 2, until: 120, trial: 100, attempt: 1},
			marks{closed: true, starts: 2, until: 120, trial: 100, attempt: 1}},
	} {
		if got := c.found.inherited(by, base, 500); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A message kills its process again and again; what runs before and after it does
// not. Nothing is handed out that durable marks do not allow.
func TestAMessageThatKillsIsFoundByMarks(t *testing.T) {
	const poison, end = 7, 300
	var durable marks
	durable.closed = true
	committed, kills := int64(0), 0
	var attempts []int32
	for starts := 0; committed < end && starts < 100; starts++ {
		base := committed
		m := durable.inherited(writer{uint64(starts) + 1, 1}, base, 50).settled(base)
		told := m
		for next := base; next < end && kills == starts; {
			if told.allows() <= next {
				m = m.settled(next).wanting(next)
				told, durable, committed = m, m, next // a commit
				if told.allows() <= next {
					t.Fatalf("%+v does not allow %d", told, next)
				}
			}
			if told.until > next && told.allows() != next+1 {
				t.Fatalf("%+v allows more than %d", told, next)
			}
			if next == poison && m.attempt <= 3 {
				if m.attempt > 0 {
					attempts = append(attempts, m.attempt)
				}
				kills++
				continue
			}
			next++
			if next == end {
				committed = end
			}
		}
	}
	if committed != end || kills != 2+3 || len(attempts) != 3 || attempts[2] != 3 {
		t.Errorf("%d committed, %d kills, attempts %v", committed, kills, attempts)
	}
}

func TestMarksOfAGoodEndDoNotCount(t *testing.T) {
	m := marks{starts: 2, until: 120}.wanting(100)
	if m != (marks{starts: 2, until: 120, trial: 100, attempt: 1, running: true}) {
		t.Fatalf("%+v", m)
	}
	if got := m.ended(); got != (marks{closed: true, starts: 2, until: 120}) {
		t.Errorf("ended: %+v", got)
	}
	m.attempt, m.running = 2, true
	if got := m.rested(); got != (marks{starts: 2, until: 120, trial: 100, attempt: 1}) {
		t.Errorf("rested: %+v", got)
	}
	if got := m.settled(101); got != (marks{starts: 2, until: 120}) {
		t.Errorf("settled: %+v", got)
	}
	if got := m.settled(120); got != (marks{}) {
		t.Errorf("settled to the end: %+v", got)
	}
	if got := (marks{}).allows(); got != math.MaxInt64 {
		t.Errorf("a healthy partition may hand out below %d", got)
	}
}
