package broadway

import "sync/atomic"

// queue is an intrusive queue of messages for many pushers and one popper,
// without a lock or an allocation: Dmitry Vyukov's intrusive MPSC node-based
// queue. It keeps the order of each pusher, and of pushers that hand over to
// each other. A message can be in one queue at a time.
//
// It has no bound of its own: what may be in it is bounded by credit.
type queue struct {
	tail atomic.Pointer[Message]
	head *Message // popper only
	stub Message
}

func (q *queue) init() {
	q.head = &q.stub
	q.tail.Store(&q.stub)
}

func (q *queue) push(m *Message) {
	m.next.Store(nil)
	// Between these two lines the popper cannot see m; see ready.
	prev := q.tail.Swap(m)
	prev.next.Store(m)
}

// pop returns nil when there is nothing to pop yet.
func (q *queue) pop() *Message {
	head, next := q.head, q.head.next.Load()
	if head == &q.stub {
		if next == nil {
			return nil
		}
		q.head = next
		head, next = next, next.next.Load()
	}
	if next != nil {
		return q.take(head, next)
	}
	if q.tail.Load() != head {
		return nil
	}
	q.push(&q.stub)
	if next = head.next.Load(); next != nil {
		return q.take(head, next)
	}
	return nil
}

// take unlinks head, so that whoever keeps it does not keep what comes after it.
func (q *queue) take(head, next *Message) *Message {
	q.head = next
	head.next.Store(nil)
	return head
}

// ready says whether pop would return a message. Popper only. False may mean
// that a pusher is between its two stores: it wakes the popper afterwards.
func (q *queue) ready() bool {
	if q.head.next.Load() != nil {
		return true
	}
	return q.head != &q.stub && q.tail.Load() == q.head
}

// mailbox is a queue whose one reader sleeps while it is empty. A pusher pays
// for a wake-up only when the reader sleeps.
//
// No wake-up is lost. (1) The reader says that it sleeps. (2) It looks into the
// queue once more. (3) It waits. A push before (2) is seen by it; a push after
// (2) sees (1) and leaves a token in wake.
type mailbox struct {
	queue
	runs   stack[run, *run] // of a batcher's
	asleep atomic.Bool
	wake   chan struct{} // one token
}

func (b *mailbox) init() {
	b.queue.init()
	b.wake = make(chan struct{}, 1)
}

// post pushes m and wakes the reader if it sleeps.
func (b *mailbox) post(m *Message) {
	b.push(m)
	b.rouse()
}

// rouse wakes the reader if it sleeps.
func (b *mailbox) rouse() {
	if b.asleep.Load() && b.asleep.CompareAndSwap(true, false) {
		b.nudge()
	}
}

// nudge makes the reader look again, asleep or not.
func (b *mailbox) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// rest announces that the reader is about to wait, and says whether it may.
func (b *mailbox) rest() bool {
	b.asleep.Store(true)
	if !b.empty() {
		b.asleep.Store(false)
		return false
	}
	return true
}

// empty says that there is nothing to take.
func (b *mailbox) empty() bool { return !b.ready() && b.runs.top.Load() == nil }

// stack is Treiber's stack, which its one reader takes as a whole. Each element has a
// place for the one below it.
type stack[T any, P linked[T]] struct{ top atomic.Pointer[T] }

type linked[T any] interface {
	*T
	link() **T
}

func (s *stack[T, P]) push(e P) {
	for below := e.link(); ; {
		*below = s.top.Load()
		if s.top.CompareAndSwap(*below, e) {
			return
		}
	}
}

// take returns all elements, the first that was pushed first, each linked to the next.
func (s *stack[T, P]) take() (first *T) {
	if s.top.Load() == nil {
		return nil
	}
	for e := s.top.Swap(nil); e != nil; {
		below := P(e).link()
		*below, first, e = first, e, *below
	}
	return first
}
