package kafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wm "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// watermillSettings are Watermill's own, with a protocol that the broker need not convert to.
func watermillSettings(in measure.Input) (*wm.Subscriber, error) {
	cfg := wm.DefaultSaramaSubscriberConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	return wm.NewSubscriber(wm.SubscriberConfig{
		Brokers: []string{in.Kafka}, Unmarshaler: wm.DefaultMarshaler{}, ConsumerGroup: in.Group, OverwriteSaramaConfig: cfg,
	}, watermill.NopLogger{})
}

// watermillSubscriber is Watermill's subscriber, without its router. Each of its partitions waits for the acknowledgement of a message
// before it hands out the next: so many readers take from all of them, of which one is fastest when nothing is waited for. It does not stop at the end of the topic.
func watermillSubscriber(readers int, sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		subscriber, err := watermillSettings(in)
		if err != nil {
			return measure.Output{}, err
		}
		start := time.Now()
		messages, err := subscriber.Subscribe(ctx, in.Topic)
		if err != nil {
			return measure.Output{}, errors.Join(err, subscriber.Close())
		}
		l := newLast(in.Messages)
		var all sync.WaitGroup
		for range readers {
			all.Go(func() {
				for {
					select {
					case m := <-messages:
						l.handle(m, sleep)
						m.Ack()
					case <-l.done:
						return
					}
				}
			})
		}
		all.Wait()
		l.wait()
		out := l.output(start)
		return out, subscriber.Close()
	}
}

// watermillRouter is Watermill's router, which starts a goroutine for each message and acknowledges it when its handler has returned.
func watermillRouter(sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
		if err != nil {
			return measure.Output{}, err
		}
		subscriber, err := watermillSettings(in)
		if err != nil {
			return measure.Output{}, err
		}
		l := newLast(in.Messages)
		router.AddConsumerHandler("drain", in.Topic, subscriber, func(m *message.Message) error {
			l.handle(m, sleep)
			return nil
		})
		start := time.Now()
		var out measure.Output
		var all sync.WaitGroup
		all.Go(func() {
			<-l.done
			l.wait()
			out = l.output(start)
			err = router.Close()
		})
		failed := router.Run(ctx)
		all.Wait()
		return out, errors.Join(failed, err, subscriber.Close())
	}
}

// last counts, and keeps the last messages: that Watermill has marked a message is known by the end of its context, which comes after
// its acknowledgement. A subscriber that is closed before has its last messages twice.
type last struct {
	tally
	want int
	done chan struct{}

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
	n := l.add(1, number)
	if n <= l.want-lateMessages {
		return
	}
	l.mu.Lock()
	l.late = append(l.late, m)
	l.mu.Unlock()
	if n == l.want {
		close(l.done)
	}
}

func (l *last) wait() {
	l.mu.Lock()
	late := l.late
	l.mu.Unlock()
	for _, m := range late {
		<-m.Context().Done()
	}
}
