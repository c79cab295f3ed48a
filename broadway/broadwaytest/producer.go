package broadwaytest

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Item is a message for a [Producer] to deliver. Fields that are zero are left
// as a source would leave them.
type Item struct {
	Payload     []byte
	Value       any
	Metadata    any
	Batcher     string
	BatchKey    string
	BatchMode   broadway.BatchMode
	Redelivered bool
	// Attempt is the number of the first attempt. Default 1.
	Attempt int
	// Size is the weight in bytes. Default len(Payload).
	Size int64
}

// Producer is a source that a test drives by hand. It delivers what is pushed,
// no more than is asked for, and remembers the asks and what was acknowledged.
// It never delivers anything twice.
type Producer struct {
	// Acks remembers what was settled and released, and can be told to fail or
	// to block.
	Acks AckRecorder

	traits  broadway.Traits
	fetch   faults
	connect faults
	asks    history[broadway.Demand]

	mu      sync.Mutex // protects following fields
	ref     *broadway.AckRef
	items   []Item
	seq     int64
	ended   bool
	waiting *broadway.Demand // of the Fetch that waits for items
	closes  int
	drained bool
	changed chan struct{} // closed at the next change; nil without a waiter
}

var (
	_ broadway.Producer  = (*Producer)(nil)
	_ broadway.Describer = (*Producer)(nil)
	_ broadway.Connector = (*Producer)(nil)
	_ broadway.Drainer   = (*Producer)(nil)
)

// NewProducer makes a producer with the given traits. Their Kind defaults to
// "test"; with no Actions it has all of them.
func NewProducer(traits broadway.Traits) *Producer {
	if traits.Kind == "" {
		traits.Kind = "test"
	}
	if traits.Name == "" {
		traits.Name = traits.Kind
	}
	if traits.Actions == 0 {
		traits.Actions = broadway.ActionSet(broadway.ActionReject, broadway.ActionRequeue,
			broadway.ActionRequeueOnce, broadway.ActionStopPartition)
	}
	p := &Producer{traits: traits}
	p.ref = broadway.NewAckRef(&p.Acks, p, 0)
	return p
}

// Push makes payloads wait to be fetched.
func (p *Producer) Push(payloads ...string) {
	items := make([]Item, len(payloads))
	for i, payload := range payloads {
		items[i].Payload = []byte(payload)
	}
	p.PushItems(items...)
}

// PushItems makes items wait to be fetched.
func (p *Producer) PushItems(items ...Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.items = append(p.items, items...)
	p.wake()
}

// End makes Fetch return io.EOF once what was pushed has been fetched.
func (p *Producer) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.wake()
}

// Waiting is how many messages were pushed and not fetched.
func (p *Producer) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.items)
}

// Ref is the reference of the messages that are fetched next.
func (p *Producer) Ref() *broadway.AckRef {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ref
}

// NewRef begins a new reference, as after a reconnection or a rebalance, with a
// limit of unsettled messages (0 for none), and gives the one before. It is for
// the test to Drain and End that.
func (p *Producer) NewRef(limit int) (before *broadway.AckRef) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.ref
	p.ref = broadway.NewAckRef(&p.Acks, p, limit)
	p.wake()
	return before
}

// FailFetch makes the next calls of Fetch return errs, one each; nil lets a call
// pass.
func (p *Producer) FailFetch(errs ...error) { p.fetch.fail(errs) }

// FailConnect is FailFetch for Connect.
func (p *Producer) FailConnect(errs ...error) { p.connect.fail(errs) }

// BlockFetch makes calls of Fetch wait, whatever is pushed, until the returned
// function is called or their context ends.
func (p *Producer) BlockFetch() (unblock func()) { return p.fetch.block() }

// BlockConnect is BlockFetch for Connect.
func (p *Producer) BlockConnect() (unblock func()) { return p.connect.block() }

// Asks are the demands of all calls of Fetch so far.
func (p *Producer) Asks() []broadway.Demand { return p.asks.all() }

// Asked is the demand of the Fetch that waits for messages, and whether one does.
func (p *Producer) Asked() (broadway.Demand, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		return broadway.Demand{}, false
	}
	return *p.waiting, true
}

// WaitAsk returns the demand of a Fetch that waits for messages, as soon as one
// does, or the cause of ctx.
func (p *Producer) WaitAsk(ctx context.Context) (broadway.Demand, error) {
	for {
		p.mu.Lock()
		waiting, changed := p.waiting, p.nextChange()
		p.mu.Unlock()
		if waiting != nil {
			return *waiting, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return broadway.Demand{}, context.Cause(ctx)
		}
	}
}

// Closes is how often Close was called.
func (p *Producer) Closes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closes
}

// Drained says whether Drain was called.
func (p *Producer) Drained() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drained
}

// Describe gives the traits of NewProducer.
func (p *Producer) Describe(broadway.Limits) broadway.Traits { return p.traits }

// Connect does what FailConnect and BlockConnect said.
func (p *Producer) Connect(ctx context.Context) error { return p.connect.pass(ctx) }

// Fetch delivers what was pushed: see [broadway.Producer].
func (p *Producer) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	p.asks.add(d)
	if err := p.fetch.pass(ctx); err != nil {
		return nil, err
	}
	defer p.wait(nil)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		messages, changed, err := p.take(d)
		if len(messages) > 0 || err != nil {
			return messages, err
		}
		p.wait(&d)
		select {
		case <-changed:
		case <-p.refused():
		case <-ctx.Done():
		}
	}
}

// wait remembers which Fetch waits, if any.
func (p *Producer) wait(d *broadway.Demand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting != d {
		p.waiting = d
		p.wake()
	}
}

// refused is when to look again because the reference is at its limit: it tells
// nobody when it has room.
func (p *Producer) refused() <-chan time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.items) == 0 {
		return nil
	}
	return time.After(time.Millisecond)
}

// take makes messages of what waits, as far as d and the reference allow.
func (p *Producer) take(d broadway.Demand) ([]*broadway.Message, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.items) == 0 && p.ended {
		return nil, nil, io.EOF
	}
	n := 0
	for ; n < min(d.Messages, len(p.items)); n++ {
		size := p.items[n].size()
		if d.Bytes -= size; d.Bytes < 0 {
			if n == 0 {
				return nil, nil, broadway.NeedBytes(size)
			}
			break
		}
	}
	n = p.ref.Take(n)
	messages := make([]*broadway.Message, n)
	for i := range messages {
		messages[i] = p.items[i].message(p.ref, p.seq)
		p.seq++
	}
	p.items = p.items[n:]
	return messages, p.nextChange(), nil
}

func (i Item) size() int64 {
	if i.Size > 0 {
		return i.Size
	}
	return int64(len(i.Payload))
}

func (i Item) message(ref *broadway.AckRef, seq int64) *broadway.Message {
	m := broadway.NewMessage(ref, seq, i.Payload)
	m.SetSize(i.size())
	m.Value, m.Metadata, m.Redelivered = i.Value, i.Metadata, i.Redelivered
	m.Batcher, m.BatchKey, m.BatchMode = i.Batcher, i.BatchKey, i.BatchMode
	if i.Attempt > 0 {
		m.Attempt = i.Attempt
	}
	return m
}

// wake and nextChange are called with p.mu held.
func (p *Producer) wake() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

func (p *Producer) nextChange() <-chan struct{} {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

// Drain remembers that it was called.
func (p *Producer) Drain(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = true
	return nil
}

// Close ends the reference.
func (p *Producer) Close() error {
	p.mu.Lock()
	p.closes++
	ref := p.ref
	p.mu.Unlock()
	ref.End()
	if p.Closes() > 1 {
		return errors.New("broadwaytest: closed again")
	}
	return nil
}
