package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Config describes a Producer. Of Payloads, Next and Queue at most one is set;
// with none of them the producer has a queue of its own: see Producer.Push.
type Config struct {
	// QueueConfig describes the producer's own queue. It must be empty when
	// Queue is set.
	QueueConfig
	// Payloads is a finite source. Payload i lies in partition i % Partitions.
	Payloads [][]byte
	// Next makes the next payload of a partition; io.EOF says that the partition
	// has no more. It is called by Fetch, and for no more than what was asked.
	// Any other error is returned by Fetch, and Next is called again later.
	Next func(partition int) ([]byte, error)
	// Queue is a source that other producers may share.
	Queue *Queue
}

// Producer is a [broadway.Producer] of messages in memory. It has the optional
// interfaces Describer, Validator, Lagger and HealthChecker; it has no Drainer,
// because nothing leaves the queue before Fetch returns it.
type Producer struct {
	queue   *Queue
	invalid error
	next    func(partition int) ([]byte, error)
	closed  atomic.Bool

	// Fetch's own.
	first int // partition to serve first
	ended []bool
	runs  []run

	// Protected by queue.mu.
	leases []*lease
	limit  int
}

var (
	_ broadway.Producer      = (*Producer)(nil)
	_ broadway.Describer     = (*Producer)(nil)
	_ broadway.Validator     = (*Producer)(nil)
	_ broadway.Lagger        = (*Producer)(nil)
	_ broadway.HealthChecker = (*Producer)(nil)
	_ broadway.Acknowledger  = (*Producer)(nil)
	_ broadway.Releaser      = (*Producer)(nil)
	_ broadway.Publisher     = (*Queue)(nil)
)

// New makes a producer. A wrong cfg is reported by Validate.
func New(cfg Config) *Producer {
	p := &Producer{queue: cfg.Queue, invalid: cfg.validate(), next: cfg.Next}
	if p.queue == nil {
		p.queue = NewQueue(cfg.QueueConfig)
	}
	n := len(p.queue.partitions)
	if cfg.Payloads != nil {
		p.next = list(cfg.Payloads, n)
	}
	p.leases, p.ended = make([]*lease, n), make([]bool, n)
	return p
}

func (c Config) validate() error {
	var errs []error
	sources := 0
	for _, set := range []bool{c.Payloads != nil, c.Next != nil, c.Queue != nil} {
		if set {
			sources++
		}
	}
	if sources > 1 {
		errs = append(errs, errors.New("memory: Payloads, Next, Queue: at most one may be set"))
	}
	own := c.QueueConfig
	if c.Queue != nil && (own.Name != "" || own.Partitions != 0 || own.Capacity != 0 ||
		own.RedeliverAfter != 0 || own.Settled != nil) {
		errs = append(errs, errors.New("memory: QueueConfig: must be empty when Queue is set"))
	}
	return errors.Join(errs...)
}

// list hands out payloads, every n-th to each partition.
func list(payloads [][]byte, n int) func(int) ([]byte, error) {
	at := make([]int, n)
	for i := range at {
		at[i] = i
	}
	return func(partition int) ([]byte, error) {
		i := at[partition]
		if i >= len(payloads) {
			return nil, io.EOF
		}
		at[partition] += n
		return payloads[i], nil
	}
}

// Queue is the producer's source.
func (p *Producer) Queue() *Queue { return p.queue }

// Push appends payloads to the producer's queue: see [Queue.Push].
func (p *Producer) Push(ctx context.Context, payloads ...[]byte) error {
	return p.queue.Push(ctx, payloads...)
}

// CloseInput says that nothing more will be pushed: see [Queue.CloseInput].
func (p *Producer) CloseInput() { p.queue.CloseInput() }

// Counts says what became of the messages of the producer's queue.
func (p *Producer) Counts() Counts { return p.queue.Counts() }

// Validate reports what is wrong with the Config.
func (p *Producer) Validate() error { return errors.Join(p.invalid, p.queue.invalid) }

// Describe tells the pipeline about the source. With more than one partition,
// each may have half of the bound unsettled.
func (p *Producer) Describe(l broadway.Limits) broadway.Traits {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	if len(p.leases) > 1 {
		p.limit = max(l.MaxUnsettled/2, 1)
	}
	return broadway.Traits{
		Kind: "memory",
		Name: p.queue.cfg.Name,
		Actions: broadway.ActionSet(broadway.ActionReject, broadway.ActionRequeue,
			broadway.ActionRequeueOnce, broadway.ActionStopPartition),
	}
}

// Fetch returns messages of the queue: see [broadway.Producer]. A finite source
// ends with io.EOF once nothing waits in the queue, also while messages are
// unsettled; when a partition was stopped by then, it ends with an error that
// says so.
func (p *Producer) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if p.closed.Load() {
			return nil, ErrClosed
		}
		changed := p.queue.changes() // before anything is looked at: room that comes in between is seen
		if err := p.generate(d); err != nil {
			return nil, err
		}
		messages, due, err := p.collect(d)
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		if err := wait(ctx, changed, due); err != nil {
			return nil, err
		}
	}
}

// wait returns nil when there may be something to do.
func wait(ctx context.Context, changed <-chan struct{}, due time.Time) error {
	var timeout <-chan time.Time
	if !due.IsZero() {
		timer := time.NewTimer(time.Until(due))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-changed:
	case <-timeout:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Cut ends the producer's session as a lost connection would: its AckRefs end,
// and what is unsettled is delivered again, within new ones.
func (p *Producer) Cut() {
	refs := p.endSession()
	for _, ref := range refs {
		ref.End()
	}
}

// endSession gives what is unsettled back to the queue.
func (p *Producer) endSession() []*broadway.AckRef {
	q := p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	var refs []*broadway.AckRef
	for i, l := range p.leases {
		if l == nil {
			continue
		}
		left := l.end()
		part := &q.partitions[i]
		part.unsettled -= len(left)
		q.waiting += len(left)
		part.restore(left...)
		refs = append(refs, l.ref)
		p.leases[i] = nil
	}
	q.wake()
	return refs
}

// Close gives what is unsettled back to the queue. It may be called again.
func (p *Producer) Close() error {
	if !p.closed.Swap(true) {
		p.Cut()
	}
	return nil
}

// Lag is how many messages each partition holds, unsettled ones included.
func (p *Producer) Lag() []broadway.Lag { return p.queue.Lag() }

// Health says which partitions were stopped.
func (p *Producer) Health() error {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	return p.stopped()
}

// stopped is an error that names the partitions that were stopped. queue.mu is
// held.
func (p *Producer) stopped() error {
	var errs []error
	for i, l := range p.leases {
		if l != nil && l.stopped {
			errs = append(errs, fmt.Errorf("memory: partition %d of %s is stopped", i, p.queue.cfg.Name))
		}
	}
	return errors.Join(errs...)
}
