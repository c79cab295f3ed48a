package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// obstacle is something at the broker that keeps a consumer from starting.
type obstacle struct {
	name string
	// configure is what the consumer wants of queue.
	configure func(cfg *rabbitmq.Config)
	// build puts the obstacle up, and clear takes it away. Both have a channel that lasts until clear has returned.
	build, clear func(ch *amqp.Channel, queue string) error
	// says is what the reason must name, besides the queue.
	says []string
}

// obstacles are those of C4.
func obstacles() []obstacle {
	plain := func(ch *amqp.Channel, queue string) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, nil)
		return err
	}
	remove := func(ch *amqp.Channel, queue string) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	}
	nothing := func(*amqp.Channel, string) error { return nil }
	exchange := func(queue string) string { return queue + "-exchange" }
	return []obstacle{
		{
			name: "another argument",
			configure: func(cfg *rabbitmq.Config) {
				cfg.Declare = &rabbitmq.QueueDeclare{Durable: true, Arguments: rabbitmq.Table{"x-max-length": 1000}}
			},
			build: func(ch *amqp.Channel, queue string) error {
				_, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-max-length": int32(777)})
				return err
			},
			clear: remove,
			says:  []string{"PRECONDITION_FAILED", "x-max-length", "1000", "777", "(406)"},
		},
		{
			name:      "not durable",
			configure: func(cfg *rabbitmq.Config) { cfg.Declare = &rabbitmq.QueueDeclare{Durable: true} },
			build: func(ch *amqp.Channel, queue string) error {
				_, err := ch.QueueDeclare(queue, false, false, false, false, nil)
				return err
			},
			clear: remove,
			says:  []string{"PRECONDITION_FAILED", "durable", "true", "false", "(406)"},
		},
		{
			name:      "another's exclusive consumer",
			configure: func(cfg *rabbitmq.Config) { cfg.Declare = &rabbitmq.QueueDeclare{Durable: true} },
			build: func(ch *amqp.Channel, queue string) error {
				if err := plain(ch, queue); err != nil {
					return err
				}
				_, err := ch.Consume(queue, "other", false, true, false, false, nil)
				return err
			},
			clear: func(ch *amqp.Channel, _ string) error { return ch.Cancel("other", false) },
			says:  []string{"ACCESS_REFUSED", "exclusive", "(403)"},
		},
		{
			name:      "another's exclusive queue",
			configure: func(cfg *rabbitmq.Config) { cfg.Declare = &rabbitmq.QueueDeclare{Durable: true} },
			build: func(ch *amqp.Channel, queue string) error {
				_, err := ch.QueueDeclare(queue, true, false, true, false, nil)
				return err
			},
			clear: remove,
			says:  []string{"RESOURCE_LOCKED", "exclusive", "(405)"},
		},
		{
			name:      "no such queue",
			configure: func(cfg *rabbitmq.Config) { cfg.Declare = &rabbitmq.QueueDeclare{Durable: true, Passive: true} },
			build:     nothing, clear: plain,
			says: []string{"NOT_FOUND", "no queue", "(404)"},
		},
		{
			name: "no such exchange",
			configure: func(cfg *rabbitmq.Config) {
				cfg.Declare = &rabbitmq.QueueDeclare{Durable: true}
				cfg.Bindings = []rabbitmq.Binding{{Exchange: exchange(cfg.Queue), RoutingKey: "k"}}
			},
			build: nothing,
			clear: func(ch *amqp.Channel, queue string) error {
				return ch.ExchangeDeclare(exchange(queue), "direct", true, false, false, false, nil)
			},
			says: []string{"NOT_FOUND", "no exchange", "-exchange", "(404)"},
		},
	}
}

// consuming is a pipeline of this process that counts.
type consuming struct {
	pipeline *broadway.Pipeline
	handled  atomic.Int64
}

func newConsuming(cfg rabbitmq.Config) (*consuming, error) {
	c := new(consuming)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.Logger = log
	config := broadway.Config{Name: cfg.Queue, Producers: []broadway.Producer{rabbitmq.NewProducer(cfg)}, Logger: log}
	config.Processor.Handler = func(context.Context, *broadway.Message) error {
		c.handled.Add(1)
		return nil
	}
	config.Failure.Action = broadway.ActionDrop
	var err error
	c.pipeline, err = broadway.New(config)
	return c, err
}

// refused is C4: each obstacle keeps one consumer from starting, and a consumer beside them works all the time.
func refused(ctx context.Context, env *Env) (*Outcome, error) {
	rabbit, err := env.RabbitMQ()
	if err != nil {
		return nil, err
	}
	run, _, err := env.newRun()
	if err != nil {
		return nil, err
	}
	outcome := new(Outcome)
	var trying sync.WaitGroup
	var mu sync.Mutex
	outcomes := func(one *Outcome, failure error) {
		mu.Lock()
		defer mu.Unlock()
		outcome.add(one)
		err = errors.Join(err, failure)
	}
	beside, stop := context.WithCancel(ctx)
	trying.Go(func() { outcomes(besides(beside, rabbit, run+"-beside")) })
	var refusing sync.WaitGroup
	for i, o := range obstacles() {
		refusing.Go(func() {
			outcomes(o.try(ctx, rabbit, fmt.Sprintf("%s-%d", run, i), env.For(60*time.Second, 8*time.Second)))
		})
	}
	refusing.Wait()
	stop()
	trying.Wait()
	return outcome, err
}

// besides publishes and consumes until ctx ends, and counts.
func besides(ctx context.Context, rabbit *rig.RabbitMQ, queue string) (outcome *Outcome, err error) {
	outcome = new(Outcome)
	if err := rabbit.CreateQueue(queue, nil); err != nil {
		return outcome, err
	}
	c, err := newConsuming(rabbitmq.Config{URL: rabbit.Proxied(), Queue: queue})
	if err != nil {
		return outcome, err
	}
	var running sync.WaitGroup
	var ran error
	running.Go(func() { ran = c.pipeline.Run(ctx) })
	var sent int64
	err = rabbit.Channel(func(ch *amqp.Channel) error {
		for ; sleep(ctx, 20*time.Millisecond) == nil; sent++ {
			if err := ch.PublishWithContext(ctx, "", queue, false, false, amqp.Publishing{Body: []byte("m")}); err != nil {
				return err
			}
		}
		return nil
	})
	running.Wait()
	outcome.Must(c.handled.Load() >= sent-5, "beside the others: %d of %d messages were handled", c.handled.Load(), sent)
	return outcome, errors.Join(err, ran)
}

// try lets a consumer run into the obstacle for a while, takes it away, and waits for a message.
func (o obstacle) try(ctx context.Context, rabbit *rig.RabbitMQ, queue string, length time.Duration) (outcome *Outcome, err error) {
	outcome = new(Outcome)
	must := func(ok bool, format string, args ...any) { outcome.Must(ok, o.name+": "+format, args...) }
	door, err := rig.NewDoor(rabbit.Proxy.Addr()) // counts
	if err != nil {
		return outcome, err
	}
	defer func() { err = errors.Join(err, door.Close()) }()
	if err := door.Listen(); err != nil {
		return outcome, err
	}
	door.Open()
	address, err := elsewhere(rabbit.Proxied(), door.Addr())
	if err != nil {
		return outcome, err
	}
	cfg := rabbitmq.Config{URL: address, Queue: queue}
	o.configure(&cfg)
	c, err := newConsuming(cfg)
	if err != nil {
		return outcome, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	var ran error
	failure := rabbit.Channel(func(ch *amqp.Channel) error {
		if err := o.build(ch, queue); err != nil {
			return fmt.Errorf("build: %w", err)
		}
		running.Go(func() { ran = c.pipeline.Run(ctx) })
		if err := sleep(ctx, length); err != nil {
			return err
		}
		why := fmt.Sprint(c.pipeline.Stats().Err)
		for _, part := range append(o.says, queue) {
			must(strings.Contains(why, part), "the reason does not say %q: %.400q", part, why)
		}
		must(float64(door.Dials()) <= max(1, length.Minutes())*10, "%d attempts within %v", door.Dials(), length)
		if err := o.clear(ch, queue); err != nil {
			return fmt.Errorf("clear: %w", err)
		}
		return nil
	})
	cleared := time.Now()
	if failure == nil {
		failure = poll(ctx, time.Minute, o.name+": it consumes", func() (bool, error) { return c.pipeline.Stats().Err == nil, nil })
	}
	took := time.Since(cleared)
	if failure == nil {
		failure = rabbit.Channel(func(ch *amqp.Channel) error {
			return ch.PublishWithContext(ctx, "", queue, false, false, amqp.Publishing{Body: []byte("m")})
		})
	}
	if failure == nil {
		failure = poll(ctx, 20*time.Second, o.name+": a message", func() (bool, error) { return c.handled.Load() == 1, nil })
	}
	stop()
	running.Wait()
	must(took <= 35*time.Second, "%.1f s until it consumed", took.Seconds())
	outcome.Note("%s: %d attempts within %v, consuming %.1f s after it was mended", o.name, door.Dials(), length, took.Seconds())
	return outcome, errors.Join(failure, ran)
}
