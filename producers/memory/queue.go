package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Defaults of a QueueConfig.
const (
	DefaultName           = "memory"
	DefaultCapacity       = 10_000
	DefaultRedeliverAfter = 100 * time.Millisecond
)

var (
	// ErrInputClosed is returned by Push and Publish after the input was closed.
	ErrInputClosed = errors.New("memory: the input of the queue is closed")
	// ErrClosed is returned by Fetch after Close.
	ErrClosed = errors.New("memory: the producer is closed")
)

// QueueConfig describes a Queue. Zero values mean the defaults.
type QueueConfig struct {
	// Name is the origin of the queue's messages. Default "memory".
	Name string
	// Partitions is how many independent parts the queue has, each with an order
	// and an AckRef of its own. Default 1.
	Partitions int
	// Capacity is how many messages may wait in the queue before Push blocks.
	// What comes back (released, requeued) is taken in beyond it: it is bounded
	// by what the pipelines hold. Default 10,000.
	Capacity int
	// RedeliverAfter is the wait before a released or requeued message is
	// delivered again. Default 100 ms.
	RedeliverAfter time.Duration
	// Settled is told of each message that leaves a pipeline, from the
	// pipeline's own goroutines. Default: nobody. It must not block.
	Settled func(Outcome, *broadway.Message)
}

func (c QueueConfig) withDefaults() QueueConfig {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.Capacity == 0 {
		c.Capacity = DefaultCapacity
	}
	if c.RedeliverAfter == 0 {
		c.RedeliverAfter = DefaultRedeliverAfter
	}
	return c
}

func (c QueueConfig) validate() error {
	var errs []error
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"Partitions", int64(c.Partitions)},
		{"Capacity", int64(c.Capacity)},
		{"RedeliverAfter", int64(c.RedeliverAfter)},
	} {
		if field.value < 0 {
			errs = append(errs, fmt.Errorf("memory: %s: %d: must not be negative", field.name, field.value))
		}
	}
	return errors.Join(errs...)
}

// Queue is a bounded queue in memory. It is a [broadway.Publisher], and the
// source of any number of producers (see Config.Queue), which compete for its
// messages. It is safe for concurrent use.
type Queue struct {
	cfg     QueueConfig
	invalid error
	seed    maphash.Seed

	mu         sync.Mutex // protects following fields
	partitions []partition
	waiting    int   // in all partitions, redeliveries included
	last       int64 // number of the newest message
	closed     bool
	changed    chan struct{} // closed at the next change; nil without a waiter
	counts     Counts
}

// NewQueue makes an empty queue. A wrong cfg is reported by the Validate of the
// producers that use it.
func NewQueue(cfg QueueConfig) *Queue {
	q := &Queue{invalid: cfg.validate(), cfg: cfg.withDefaults(), seed: maphash.MakeSeed()}
	q.partitions = make([]partition, max(q.cfg.Partitions, 1))
	return q
}

// Push appends payloads, which belong to the queue from then on, in turn to
// each partition. It blocks while the queue is full. An error says that not all
// were pushed, a [*broadway.PublishError] which.
func (q *Queue) Push(ctx context.Context, payloads ...[]byte) error {
	records := make([]broadway.Record, len(payloads))
	for i, payload := range payloads {
		records[i].Payload = payload
	}
	return q.Publish(ctx, records...)
}

// Publish appends records, which belong to the queue from then on. Records of
// one key go to one partition, those without a key to each in turn; a record's
// Destination is ignored. It blocks while the queue is full.
func (q *Queue) Publish(ctx context.Context, records ...broadway.Record) error {
	done := 0
	for {
		n, changed, err := q.admit(records[done:])
		done += n
		if done == len(records) {
			return nil
		}
		if err != nil {
			return unpublished(len(records), done, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return unpublished(len(records), done, context.Cause(ctx))
		}
	}
}

func unpublished(total, done int, err error) error {
	if done == 0 {
		return err
	}
	errs := make([]error, total)
	for i := done; i < total; i++ {
		errs[i] = err
	}
	return &broadway.PublishError{Errs: errs}
}

// admit appends as many records as there is room for, and gives the channel
// that tells of the next change.
func (q *Queue) admit(records []broadway.Record) (int, <-chan struct{}, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, nil, ErrInputClosed
	}
	n := min(max(q.cfg.Capacity-q.waiting, 0), len(records))
	for i := range records[:n] {
		r := &records[i]
		q.append(q.partitionOf(r.Key), entry{
			Metadata: Metadata{Key: r.Key, Headers: r.Headers}, payload: r.Payload,
		})
	}
	if n > 0 {
		q.wake()
	}
	return n, q.nextChange(), nil
}

// partitionOf chooses by the hash of a key, and without one in turn.
func (q *Queue) partitionOf(key []byte) int {
	n := uint64(len(q.partitions))
	if key == nil {
		return int(uint64(q.last) % n)
	}
	return int(maphash.Bytes(q.seed, key) % n)
}

// append numbers e and puts it at the end of partition p. q.mu is held.
func (q *Queue) append(p int, e entry) {
	q.last++
	e.Queue, e.Partition, e.Number = q.cfg.Name, p, q.last
	q.partitions[p].fresh.push(e)
	q.waiting++
}

// CloseInput says that nothing more will be pushed. Once the queue is empty its
// producers return io.EOF.
func (q *Queue) CloseInput() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}

// Close is CloseInput: it makes the queue a [broadway.Publisher].
func (q *Queue) Close() error {
	q.CloseInput()
	return nil
}

// Len is how many messages the queue holds: those that wait, and those that were
// delivered and are not settled.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.waiting
	for i := range q.partitions {
		n += q.partitions[i].unsettled
	}
	return n
}

// Unsettled is how many messages were delivered and are not settled.
func (q *Queue) Unsettled() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for i := range q.partitions {
		n += q.partitions[i].unsettled
	}
	return n
}

// Counts says what became of the messages so far.
func (q *Queue) Counts() Counts {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts
}

// Lag is how many messages each partition holds, unsettled ones included.
func (q *Queue) Lag() []broadway.Lag {
	q.mu.Lock()
	defer q.mu.Unlock()
	lags := make([]broadway.Lag, len(q.partitions))
	for i := range q.partitions {
		p := &q.partitions[i]
		held := p.ready() + len(p.parked) + p.unsettled
		lags[i] = broadway.Lag{Source: q.cfg.Name, Partition: i, Messages: int64(held)}
	}
	return lags
}

// wake ends the waits of all that wait for a change. q.mu is held.
func (q *Queue) wake() {
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

// roused is wake for callers that do not hold queue.mu.
func (q *Queue) roused() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake()
}

// changes is nextChange for callers that do not hold queue.mu.
func (q *Queue) changes() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.nextChange()
}

// nextChange is closed at the next change. q.mu is held.
func (q *Queue) nextChange() <-chan struct{} {
	if q.changed == nil {
		q.changed = make(chan struct{})
	}
	return q.changed
}

// partition is one part of a Queue. Its messages are delivered in order of their
// numbers, except that a redelivery comes when its wait is over.
type partition struct {
	fresh     fifo    // never delivered
	again     []entry // to be delivered again, by number
	parked    []park  // to be delivered again later, by due time
	unsettled int     // delivered by any producer
}

type park struct {
	entry
	due time.Time
}

// ready is how many messages could be delivered now.
func (p *partition) ready() int { return len(p.again) + p.fresh.len() }

// at is the i-th message that could be delivered now.
func (p *partition) at(i int) *entry {
	if i < len(p.again) {
		return &p.again[i]
	}
	return p.fresh.at(i - len(p.again))
}

// take moves the first len(into) messages that could be delivered now.
func (p *partition) take(into []entry) {
	n := copy(into, p.again)
	p.again = slices.Delete(p.again, 0, n)
	for i := n; i < len(into); i++ {
		into[i] = p.fresh.pop()
	}
}

// restore makes es deliverable again at once.
func (p *partition) restore(es ...entry) {
	p.again = append(p.again, es...)
	slices.SortFunc(p.again, func(a, b entry) int { return cmp.Compare(a.Number, b.Number) })
}

// unpark restores what is due, and says when the next is: zero for never.
func (p *partition) unpark(now time.Time) time.Time {
	n := 0
	for n < len(p.parked) && !p.parked[n].due.After(now) {
		n++
	}
	if n > 0 {
		es := make([]entry, n)
		for i := range es {
			es[i] = p.parked[i].entry
		}
		p.parked = slices.Delete(p.parked, 0, n)
		p.restore(es...)
	}
	if len(p.parked) == 0 {
		return time.Time{}
	}
	return p.parked[0].due
}

// entry is one message of a queue.
type entry struct {
	Metadata
	payload []byte
	gone    bool // settled; beside the Metadata, which handlers may be reading
}

// size is what the message weighs: payload, key and headers.
func (e *entry) size() int64 {
	n := len(e.payload) + len(e.Key)
	for _, h := range e.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// fifo is a queue in a slice, whose front is given free for reuse.
type fifo struct {
	items []entry
	head  int
}

func (f *fifo) len() int        { return len(f.items) - f.head }
func (f *fifo) at(i int) *entry { return &f.items[f.head+i] }

func (f *fifo) push(e entry) {
	if len(f.items) == cap(f.items) && f.head > len(f.items)/2 {
		f.items = slices.Delete(f.items, 0, f.head)
		f.head = 0
	}
	f.items = append(f.items, e)
}

func (f *fifo) pop() entry {
	e := f.items[f.head]
	f.items[f.head] = entry{}
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return e
}
