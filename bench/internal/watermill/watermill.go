// Package watermill drains what a Watermill subscriber has, with and without its router.
package watermill

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// Drain reads a topic by so many subscriptions, and closes the subscriber. Without a router a subscription hands out a message of a
// partition, or of a channel, when the one before is acknowledged.
func Drain(ctx context.Context, in measure.Input, from message.Subscriber, topic string, subscriptions int) (measure.Output, error) {
	start := time.Now()
	l := newLast(in.Messages)
	var all sync.WaitGroup
	for range subscriptions {
		messages, err := from.Subscribe(ctx, topic)
		if err != nil {
			return measure.Output{}, errors.Join(err, from.Close())
		}
		all.Go(func() {
			for {
				select {
				case m := <-messages:
					l.handle(m, 0)
					m.Ack()
				case <-l.done:
					return
				}
			}
		})
	}
	all.Wait()
	l.wait()
	return l.output(start), from.Close()
}

// Route reads a topic by the router, which starts a goroutine for each message and acknowledges it when its handler, which sleeps, has
// returned. It closes the subscriber.
func Route(ctx context.Context, in measure.Input, from message.Subscriber, topic string, sleep time.Duration) (measure.Output, error) {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return measure.Output{}, errors.Join(err, from.Close())
	}
	l := newLast(in.Messages)
	router.AddConsumerHandler("drain", topic, from, func(m *message.Message) error {
		l.handle(m, sleep)
		return nil
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	var out measure.Output
	var closing error
	var all sync.WaitGroup
	all.Go(func() {
		select {
		case <-l.done:
			l.wait()
			out = l.output(start)
			closing = router.Close()
		case <-ctx.Done():
		}
	})
	err = router.Run(ctx)
	cancel()
	all.Wait()
	return out, errors.Join(err, closing, from.Close())
}

// last counts, and keeps the last messages: that Watermill has told the broker of one is known by the end of its context, which comes
// after its acknowledgement. A subscriber that is closed before has some of them twice.
type last struct {
	count atomic.Int64
	sum   atomic.Uint64
	want  int
	done  chan struct{} // closed when all were handled

	mu   sync.Mutex
	late []*message.Message
}

// lateMessages is more than there can be unacknowledged at once.
const lateMessages = 1000

func newLast(want int) *last { return &last{want: want, done: make(chan struct{})} }

func (l *last) handle(m *message.Message, sleep time.Duration) {
	number := measure.Read(m.Payload)
	if sleep > 0 {
		time.Sleep(sleep)
	}
	l.sum.Add(number)
	if int(l.count.Add(1)) <= l.want-lateMessages {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late = append(l.late, m); len(l.late) == min(l.want, lateMessages) {
		close(l.done)
	}
}

// wait waits until all were acknowledged.
func (l *last) wait() {
	l.mu.Lock()
	late := l.late
	l.mu.Unlock()
	for _, m := range late {
		<-m.Context().Done()
	}
}

func (l *last) output(start time.Time) measure.Output {
	return measure.Output{Messages: int(l.count.Load()), Sum: l.sum.Load(), Elapsed: time.Since(start)}
}
