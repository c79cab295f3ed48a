package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// kafkaBench is a run on rig K: a topic, a group, a topic of dead letters, and the sampler of offsets.
type kafkaBench struct {
	*bench
	rig         *rig.Kafka
	partitions  int
	stopSampler context.CancelFunc
	sampling    sync.WaitGroup
	sampleErr   error
}

// newKafkaBench makes topics and starts the sampler. finish or abandon ends it.
func newKafkaBench(ctx context.Context, env *Env, partitions int) (*kafkaBench, error) {
	kafka, err := env.Kafka()
	if err != nil {
		return nil, err
	}
	return newKafkaBenchOn(ctx, env, kafka, partitions, nil)
}

func newKafkaBenchOn(ctx context.Context, env *Env, kafka *rig.Kafka, partitions int, config map[string]string) (*kafkaBench, error) {
	b, err := newBench(env, kafka.Proxy, wire.NewKafka)
	if err != nil {
		return nil, err
	}
	k := &kafkaBench{bench: b, rig: kafka, partitions: partitions}
	err = errors.Join(kafka.CreateTopic(ctx, b.name, partitions, config), kafka.CreateTopic(ctx, b.dead, 1, config))
	if err != nil {
		return nil, err
	}
	sampled, stop := context.WithCancel(ctx)
	k.stopSampler = stop
	k.sampling.Go(func() { k.sampleErr = load.Sample(sampled, kafka, b.name, b.name, b.dir) })
	return k, nil
}

// close ends the sampler, and whatever a failed run left.
func (k *kafkaBench) close() {
	k.stopSampler()
	k.sampling.Wait()
	k.abandon()
}

// produce puts n messages into the topic.
func (k *kafkaBench) produce(ctx context.Context, spec load.Spec) error {
	spec.Dir, spec.Run, spec.Source = k.dir, k.name, k.name
	return load.Kafka(ctx, k.rig.Direct(), spec, &k.sent)
}

// config is a worker whose process holds at most window messages handed out and not durably committed, however many of the
// partitions it owns.
func (k *kafkaBench) config(window int) worker.Config {
	each := max(1, window/k.partitions)
	return worker.Config{
		Dir: k.dir, Concurrency: 8, MaxDemand: 100, MaxUnsettled: each, DeadLetter: k.dead, DrainTimeout: 10 * time.Second,
		Kafka: &worker.Kafka{
			Brokers: []string{k.rig.Proxied()}, Topic: k.name, Group: k.name, Window: each,
			SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond, RebalanceTimeout: 10 * time.Second,
			CommitInterval: 200 * time.Millisecond, MetadataInterval: time.Second,
		},
	}
}

// awaitDrained returns when the group has committed everything.
func (k *kafkaBench) awaitDrained(ctx context.Context, limit time.Duration) error {
	return poll(ctx, limit, "the group has no lag", func() (bool, error) {
		lag, err := k.rig.Lag(ctx, k.name, k.name)
		return err == nil && lag == 0, errors.Join(err, fmt.Errorf("lag %d", lag))
	})
}

// finish stops the workers, drains what is left, and checks. Source, Group and Ordered of the rules are set.
func (k *kafkaBench) finish(ctx context.Context, rules check.Rules) (*Outcome, error) {
	codes, err := k.stopAll(30 * time.Second)
	if err != nil {
		return nil, err
	}
	k.stopSampler()
	k.sampling.Wait()
	if k.sampleErr != nil {
		return nil, k.sampleErr
	}
	end, err := k.leftovers(ctx)
	if err != nil {
		return nil, err
	}
	if rules.TopicIDs, err = k.rig.TopicIDs(ctx, k.name); err != nil {
		return nil, err
	}
	rules.Source, rules.Group, rules.Ordered = k.name, k.name, !k.loose
	outcome, err := k.verdict(rules, end)
	if err != nil {
		return nil, err
	}
	for _, code := range codes {
		outcome.Must(code == worker.ExitClean, "a worker ended with code %d", code)
	}
	return outcome, nil
}

// leftovers drains the dead letters and what the group has not committed.
func (k *kafkaBench) leftovers(ctx context.Context) (end check.End, err error) {
	positions, err := k.rig.Positions(ctx, k.name, k.name)
	if err != nil {
		return end, err
	}
	from, to := map[int32]int64{}, map[int32]int64{}
	for _, at := range positions {
		p := int32(at.Partition)
		from[p], to[p] = max(at.Start, at.Committed), at.End
		end.Lag += to[p] - from[p]
	}
	if _, err := load.DrainKafka(ctx, k.rig.Direct(), k.name, k.drain(ledger.KindResidual), from, to); err != nil {
		return end, err
	}
	if err := k.drainDead(ctx); err != nil {
		return end, err
	}
	end.GroupState, _, err = k.rig.GroupState(ctx, k.name)
	return end, err
}

func (k *kafkaBench) drainDead(ctx context.Context) error {
	positions, err := k.rig.Positions(ctx, k.name, k.dead)
	if err != nil {
		return err
	}
	from, to := map[int32]int64{}, map[int32]int64{}
	for _, at := range positions {
		from[int32(at.Partition)], to[int32(at.Partition)] = at.Start, at.End
	}
	_, err = load.DrainKafka(ctx, k.rig.Direct(), k.dead, k.drain(ledger.KindDead), from, to)
	return err
}

// eachOnKafka runs the variants of a scenario one after another, each on a topic of its own, and puts their outcomes together.
func eachOnKafka(ctx context.Context, env *Env, partitions int, variants ...func(context.Context, *kafkaBench) (*Outcome, error)) (*Outcome, error) {
	all := new(Outcome)
	for _, variant := range variants {
		bench, err := newKafkaBench(ctx, env, partitions)
		if err != nil {
			return all, err
		}
		outcome, err := variant(ctx, bench)
		bench.close()
		if err != nil {
			return all, err
		}
		all.add(outcome)
	}
	return all, nil
}
