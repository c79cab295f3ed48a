package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// rabbitBench is a run on rig R: a queue, and one of dead letters.
type rabbitBench struct {
	*bench
	rig    *rig.RabbitMQ
	single bool
}

// newRabbitBench declares the queues. arguments are the first one's.
func newRabbitBench(env *Env, arguments amqp.Table) (*rabbitBench, error) {
	rabbit, err := env.RabbitMQ()
	if err != nil {
		return nil, err
	}
	b, err := newBench(env, rabbit.Proxy, wire.NewAMQP)
	if err != nil {
		return nil, err
	}
	single, _ := arguments["x-single-active-consumer"].(bool)
	r := &rabbitBench{bench: b, rig: rabbit, single: single}
	return r, errors.Join(rabbit.CreateQueue(b.name, arguments), rabbit.CreateQueue(b.dead, nil))
}

// produce puts messages into the queue.
func (r *rabbitBench) produce(ctx context.Context, spec load.Spec) error {
	spec.Dir, spec.Run, spec.Source = r.dir, r.name, r.name
	return load.RabbitMQ(ctx, r.rig.Direct(), spec, &r.sent)
}

// config is a worker with a prefetch, which is back soon after an outage: by default it may wait for half a minute.
func (r *rabbitBench) config(prefetch int) worker.Config {
	return worker.Config{
		Dir: r.dir, Concurrency: 8, MaxDemand: 100, MaxUnsettled: prefetch, DeadLetter: r.dead, DrainTimeout: 10 * time.Second,
		Rabbit: &worker.Rabbit{URL: r.rig.Proxied(), Queue: r.name, Prefetch: prefetch, Single: r.single, BackoffMax: 5 * time.Second},
	}
}

// awaitDrained returns when the queue is empty and nothing is unacknowledged.
func (r *rabbitBench) awaitDrained(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not drained within %v", limit))
	defer cancel()
	return r.rig.AwaitEmpty(ctx, r.name)
}

// finish stops the workers, drains what is left, and checks. Source and Ordered of the rules are set.
func (r *rabbitBench) finish(ctx context.Context, rules check.Rules) (*Outcome, error) {
	codes, err := r.stopAll(30 * time.Second)
	if err != nil {
		return nil, err
	}
	ready, unacked, err := r.rig.Depth(r.name)
	if err != nil {
		return nil, err
	}
	_, err = load.DrainRabbitMQ(ctx, r.rig.Direct(), r.name, r.drain(ledger.KindResidual))
	if err == nil {
		_, err = load.DrainRabbitMQ(ctx, r.rig.Direct(), r.dead, r.drain(ledger.KindDead))
	}
	if err != nil {
		return nil, err
	}
	rules.Source, rules.Ordered = r.name, r.single
	outcome, err := r.verdict(rules, check.End{Ready: int64(ready), Unacked: int64(unacked)})
	if err != nil {
		return nil, err
	}
	for _, code := range codes {
		outcome.Must(code == worker.ExitClean, "a worker ended with code %d", code)
	}
	return outcome, nil
}
