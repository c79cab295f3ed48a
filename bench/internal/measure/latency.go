package measure

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// first is how many messages are sent at once and waited for before any is due, so that a system has joined, and its path is warm.
	first = 60
	// patience is how long a round may take beyond the time in which its messages are due.
	patience = time.Minute
)

// Latency is one round of messages that are due at a steady rate, whether the system keeps up or not: each counts from when it was due,
// so that one that was written late, because the system or its source held the writer up, counts as late.
type Latency struct {
	pace    pace
	began   time.Time
	settled []time.Duration // since began, by message; written once each, before left is counted down
	due     []time.Duration // the same
	left    atomic.Int64
	sum     atomic.Uint64
	warm    chan struct{} // closed when the first have been settled
	all     chan struct{} // closed when all have been
}

// pace says when each message is due.
type pace struct {
	rate, burst int
}

// due is when message i (from 0) is, after the first, rounded up to a nanosecond.
func (p pace) due(i int) time.Duration {
	i -= i % p.burst
	return time.Duration((int64(i)*int64(time.Second) + int64(p.rate) - 1) / int64(p.rate))
}

// by is how many messages are due after so long: each i with due(i) <= after.
func (p pace) by(after time.Duration) int {
	if after < 0 {
		return 0
	}
	whole := int(int64(after) * int64(p.rate) / int64(time.Second))
	return (whole/p.burst + 1) * p.burst
}

// NewLatency is a round of so many messages, rate of them due in each second, burst at a time.
func NewLatency(messages, rate, burst int) *Latency {
	l := &Latency{
		pace: pace{rate: rate, burst: burst}, began: time.Now(),
		settled: make([]time.Duration, messages), due: make([]time.Duration, messages),
		warm: make(chan struct{}), all: make(chan struct{}),
	}
	l.left.Store(int64(messages))
	return l
}

// Settle says that the message with this number, from 1, is settled now. It is called once for each message, by any goroutine; the number 0, of
// a message that is not whole, is not counted, so that the round does not end.
func (l *Latency) Settle(number uint64, now time.Time) {
	if number == 0 || number > uint64(len(l.settled)) {
		return
	}
	l.settled[number-1] = now.Sub(l.began)
	l.sum.Add(number)
	left := l.left.Add(-1)
	if left == int64(max(len(l.settled)-first, 0)) {
		close(l.warm)
	}
	if left == 0 {
		close(l.all)
	}
}

// Done is closed when all are settled.
func (l *Latency) Done() <-chan struct{} { return l.all }

// Run produces the messages by send, each once it is due, while system consumes them. It returns once system has, which returns after the
// last message, or when its context ends.
func (l *Latency) Run(ctx context.Context, send func(message int) error, system func(context.Context) error) (Output, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := l.pace.due(len(l.settled)) + patience
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not all messages were settled after %v", limit))
	defer stop()
	var producer sync.WaitGroup
	var sent error
	producer.Go(func() {
		if sent = l.produce(ctx, send); sent != nil {
			cancel(sent)
		}
	})
	err := system(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	cancel(errors.New("the system has returned"))
	producer.Wait()
	if err := errors.Join(err, sent); err != nil {
		return Output{}, err
	}
	return l.output(), nil
}

// produce sends the first messages at once, and the others at their pace.
func (l *Latency) produce(ctx context.Context, send func(int) error) error {
	messages := len(l.due)
	for i := range min(first, messages) {
		if err := send(i); err != nil {
			return err
		}
	}
	if messages <= first {
		return nil
	}
	select {
	case <-l.warm:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	pause, done := pauser()
	defer done()
	from := time.Since(l.began)
	for at := first; at < messages; {
		now := time.Since(l.began) - from
		for end := min(first+l.pace.by(now), messages); at < end; at++ {
			l.due[at] = from + l.pace.due(at-first)
			if err := send(at); err != nil {
				return err
			}
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if wait := l.pace.due(at-first) - (time.Since(l.began) - from); at < messages && wait > 0 {
			pause(wait)
		}
	}
	return nil
}

// output leaves out the first tenth of what was due, in which connections and heaps find their size.
func (l *Latency) output() Output {
	messages := len(l.settled)
	out := Output{Messages: messages - int(l.left.Load()), Sum: l.sum.Load()}
	from := min(first, messages)
	var last time.Duration
	var late []time.Duration
	for i := from; i < messages; i++ {
		last = max(last, l.settled[i])
		if i >= from+(messages-from)/10 {
			late = append(late, l.settled[i]-l.due[i])
		}
	}
	p := percentiles(late)
	out.Latency = &p
	if from < messages {
		out.Elapsed = last - l.due[from]
	}
	return out
}
