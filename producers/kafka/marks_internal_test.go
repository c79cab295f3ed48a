package kafka

import (
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
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

// marksModel is a partition whose owners die of some messages, live on after they were
// lost, or end in good order, with up to ten messages in hand and commits at any time.
type marksModel struct {
	*rapid.T
	poison map[int64]bool

	durable     marks
	by          writer
	base        int64
	durablyDone map[int64]bool

	members [3]uint64
	// Of the ownership that goes on.
	member      int
	id          uint64
	m, told     marks
	done, taken map[int64]bool
	next        int64
	epoch       int32 // the generation

	seen     map[uint64]int32 // who has written since, and in which generation
	kills    map[int64]int
	attempts map[int64]int32
}

const (
	modelEnd      = 60
	modelWindow   = 40
	modelAttempts = 3
)

func (p *marksModel) begin() {
	p.epoch++
	p.member = rapid.IntRange(0, 2).Draw(p.T, "member")
	p.id = p.members[p.member]
	m := p.durable
	if p.by.id == p.id {
		m = m.ended()
	}
	alive := func(w writer) bool { return w.id == p.id || p.seen[w.id] > w.generation }
	p.m = m.inherited(p.by, p.base, modelWindow).vouched(alive).settled(p.base)
	p.told = p.m
	p.done, p.taken, p.next = maps.Clone(p.durablyDone), map[int64]bool{}, p.base
}

func (p *marksModel) prefix() (next int64) {
	for next = p.base; p.done[next]; next++ {
	}
	return next
}

func (p *marksModel) commit() {
	p.m = p.m.settled(p.prefix())
	p.durable, p.told, p.by, p.base = p.m, p.m, writer{p.id, p.epoch}, p.prefix()
	p.durablyDone = maps.Clone(p.done)
	p.seen[p.id] = p.epoch
}

// deliver hands out the next message, if that is allowed.
func (p *marksModel) deliver() {
	for p.done[p.next] {
		p.next++
	}
	switch at := p.next; {
	case at >= modelEnd || at >= p.base+modelWindow || len(p.taken) == 10 || p.m.until > 0 && len(p.taken) > 0:
	case p.told.allows() <= at:
		p.m = p.m.settled(p.prefix()).wanting(at)
		p.commit()
	default:
		if p.m.attempt > 0 && p.m.trial == at {
			p.attempts[at] = max(p.attempts[at], p.m.attempt)
			if p.m.attempt > modelAttempts {
				p.done[at] = true // given up
				if !p.poison[at] {
					p.Fatalf("%d is given up, and killed nobody", at)
				}
				return
			}
		}
		p.taken[at] = true
		p.next++
	}
}

// handle lets a message return from its handler, and says whether it killed the
// process.
func (p *marksModel) handle() (died bool) {
	if len(p.taken) == 0 {
		return false
	}
	at := rapid.SampledFrom(slices.Sorted(maps.Keys(p.taken))).Draw(p.T, "message")
	if p.poison[at] {
		p.kills[at]++
		return true
	}
	delete(p.taken, at)
	p.done[at] = true
	return false
}

// Whatever happens when: a message that kills is given up after at most two deaths
// more than its attempts, and others are not; nor when members are lost that live.
func TestMarksFindWhatKillsAndNobodyElse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := &marksModel{
			T: rt, poison: map[int64]bool{}, durable: marks{closed: true}, durablyDone: map[int64]bool{},
			members: [3]uint64{1, 2, 3}, seen: map[uint64]int32{}, kills: map[int64]int{}, attempts: map[int64]int32{},
		}
		for range rapid.IntRange(0, 3).Draw(rt, "poisons") {
			p.poison[rapid.Int64Range(0, modelEnd-1).Draw(rt, "poison")] = true
		}
		p.begin()
		for step := 0; p.base < modelEnd; step++ {
			if step > 20_000 {
				rt.Fatalf("no end: %+v at %d of %d", p.m, p.base, modelEnd)
			}
			switch rapid.IntRange(0, 60).Draw(rt, "event") {
			case 0: // a rebalance
				p.m = p.m.settled(p.prefix()).ended()
				p.commit()
				p.begin()
			case 1: // the group loses it; it comes back
				lost := p.id
				p.begin()
				p.seen[lost] = p.epoch
			case 2:
				p.commit()
			case 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20:
				if p.handle() {
					p.members[p.member] += 3 // another process takes its place
					p.begin()
				}
			default:
				p.deliver()
			}
			if len(p.taken) == 0 && p.next >= modelEnd || p.next >= p.base+modelWindow {
				p.commit()
			}
		}
		for at, n := range p.kills {
			if n > 2+modelAttempts {
				rt.Errorf("%d killed %d", at, n)
			}
		}
		for at, n := range p.attempts {
			if !p.poison[at] && n > 2 { // the last one may not have been heard of yet
				rt.Errorf("%d was tried as attempt %d, and killed nobody", at, n)
			}
		}
	})
}
