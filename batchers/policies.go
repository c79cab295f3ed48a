package batchers

import (
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Count closes a batch that holds n messages; n below 1 counts as 1. It is for
// combinations: alone, the batcher's Size does the same.
func Count(n int) broadway.BatchPolicy {
	return Func(0, func(held int, _ *broadway.Message) (int, bool) { return held + 1, held+1 >= n })
}

// Bytes closes a batch before the message that would make it weigh more than n
// bytes (see [broadway.Message.Size]), and at once when it weighs n. A single
// larger message is a batch of its own.
func Bytes(n int64) broadway.BatchPolicy { return Weight(n, (*broadway.Message).Size) }

// Weight is Bytes for another weight, such as the number of rows in a message.
// weigh is called twice for most messages; what is below 0 counts as 0.
func Weight(n int64, weigh func(*broadway.Message) int64) broadway.BatchPolicy {
	return weight{n, weigh}
}

type weight struct {
	limit int64
	weigh func(*broadway.Message) int64
}

type weightState struct {
	unlimited
	weight
	sum int64
}

func (w weight) Open(time.Time) broadway.BatchState { return &weightState{weight: w} }

func (s *weightState) Fits(m *broadway.Message) bool {
	return max(s.weigh(m), 0) <= s.limit-s.sum
}

func (s *weightState) Add(m *broadway.Message) bool {
	w := max(s.weigh(m), 0)
	if w >= s.limit-s.sum {
		s.sum = s.limit
		return true
	}
	s.sum += w
	return false
}

// Age closes a batch d after its first message came. It is for combinations:
// alone, the batcher's Timeout does the same. The trigger that the reporter is
// told is broadway.TriggerTimeout.
func Age(d time.Duration) broadway.BatchPolicy { return age(d) }

type age time.Duration

type ageState struct {
	unlimited
	deadline time.Time
}

func (a age) Open(now time.Time) broadway.BatchState {
	return ageState{deadline: now.Add(time.Duration(a))}
}

func (s ageState) Deadline() time.Time { return s.deadline }

// Run closes a batch before a message of which value says something else than of
// those before it: a batch is a run of equal values. Unlike a batch key, it never
// has more than one batch open.
func Run[V comparable](value func(*broadway.Message) V) broadway.BatchPolicy { return run[V]{value} }

type run[V comparable] struct{ value func(*broadway.Message) V }

type runState[V comparable] struct {
	unlimited
	run[V]
	current V
}

func (r run[V]) Open(time.Time) broadway.BatchState { return &runState[V]{run: r} }

func (s *runState[V]) Fits(m *broadway.Message) bool { return s.value(m) == s.current }

func (s *runState[V]) Add(m *broadway.Message) bool {
	s.current = s.value(m)
	return false
}

// Func makes a policy of a function: step gets what it returned for the message
// before (for a batch's first message, initial), and says with true that m
// completes the batch. initial must not be something that step changes in place,
// such as a map: it is shared by all batches.
func Func[A any](initial A, step func(state A, m *broadway.Message) (next A, complete bool)) broadway.BatchPolicy {
	return fold[A]{initial, step}
}

type fold[A any] struct {
	initial A
	step    func(A, *broadway.Message) (A, bool)
}

type foldState[A any] struct {
	unlimited
	fold[A]
	state A
}

func (f fold[A]) Open(time.Time) broadway.BatchState { return &foldState[A]{fold: f, state: f.initial} }

func (s *foldState[A]) Add(m *broadway.Message) (complete bool) {
	s.state, complete = s.step(s.state, m)
	return complete
}

// Any closes a batch as soon as any of policies does. Without policies it never
// does.
func Any(policies ...broadway.BatchPolicy) broadway.BatchPolicy { return anyOf(policies) }

type anyOf []broadway.BatchPolicy

type anyState []broadway.BatchState

func (a anyOf) Open(now time.Time) broadway.BatchState {
	s := make(anyState, len(a))
	for i, p := range a {
		s[i] = p.Open(now)
	}
	return s
}

func (s anyState) Fits(m *broadway.Message) bool {
	for _, one := range s {
		if !one.Fits(m) {
			return false
		}
	}
	return true
}

func (s anyState) Add(m *broadway.Message) bool {
	complete := false
	for _, one := range s {
		complete = one.Add(m) || complete // every one is told
	}
	return complete
}

func (s anyState) Deadline() time.Time {
	var first time.Time
	for _, one := range s {
		if at := one.Deadline(); first.IsZero() || !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	return first
}

// unlimited is the part of a state that sets no limit.
type unlimited struct{}

func (unlimited) Fits(*broadway.Message) bool { return true }
func (unlimited) Add(*broadway.Message) bool  { return false }
func (unlimited) Deadline() time.Time         { return time.Time{} }
