package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// slowHandlers is B5: handlings longer than the session time-out, and one that never ends, which is waited for, or let go of.
func slowHandlers(ctx context.Context, env *Env) (*Outcome, error) {
	return eachOnKafka(ctx, env, 8, slowOnes, hungForEver, hungLetGo)
}

// slowOnes are five messages of one partition, of a key each, that take longer than the session time-out, while a load goes on that the
// other workers can bear.
func slowOnes(ctx context.Context, k *kafkaBench) (*Outcome, error) {
	const processes, producers = 2, 4
	session := k.env.For(6*time.Second, 3*time.Second)
	length := k.env.For(20*time.Second, 10*time.Second)
	lasts := 2 * length
	n := k.env.N(40_000, 4_000)
	spec := load.Spec{Messages: n, Producers: producers, Keys: 400, Every: lasts * producers / time.Duration(n)}
	slow := worker.Fault{Kind: worker.Slow, For: length}
	named := spec
	named.Run = k.name
	keys := map[string]bool{}
	for i := n / producers / 5; len(slow.IDs) < 5; i++ {
		if id, key := named.Name(0, i); load.PartitionOf(key, k.partitions) == 0 && !keys[key] {
			slow.IDs, keys[key] = append(slow.IDs, id), true
		}
	}
	cfg := k.config(1000)
	cfg.Kafka.SessionTimeout, cfg.Faults = session, []worker.Fault{slow}
	if _, err := k.startAll(ctx, processes, cfg); err != nil {
		return nil, err
	}
	if err := k.whole(ctx, processes, processes); err != nil {
		return nil, err
	}
	before := k.total("generations")
	if err := errors.Join(k.produce(ctx, spec), k.awaitDrained(ctx, time.Minute+5*length)); err != nil {
		return nil, err
	}
	rebalances := k.total("generations") - before
	outcome, err := k.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	pace, err := k.paceBeside(0, slow)
	if err != nil {
		return nil, err
	}
	outcome.Must(rebalances == 0, "slow: %d rebalances", rebalances)
	outcome.Must(pace >= 0.9, "slow: the other partitions had %.0f %% of what was sent to them meanwhile", 100*pace)
	outcome.Note("five handlings of %v with a session time-out of %v: %d rebalances, the other partitions had %.0f %% of the %d messages/s that came meanwhile",
		length, session, rebalances, 100*pace, n/int(lasts/time.Second))
	return outcome, nil
}

// whole returns when the group is stable with so many members, and they have told of so many generations in sum: it may have been
// stable with those that are gone.
func (k *kafkaBench) whole(ctx context.Context, members int, generations int64) error {
	return poll(ctx, time.Minute, fmt.Sprintf("a stable group of %d", members), func() (bool, error) {
		state, n, err := k.rig.GroupState(ctx, k.name)
		return err == nil && state == "Stable" && n == members && k.total("generations") >= generations, err
	})
}

// paceBeside is how many of the messages that came to the other partitions while slow ones were handled succeeded while they were.
func (k *kafkaBench) paceBeside(partition int32, slow worker.Fault) (float64, error) {
	done, err := successes(k.dir)
	if err != nil {
		return 0, err
	}
	var from, to int64
	for _, o := range done {
		if slow.Strikes(o.ID) {
			if began := o.At - int64(slow.For); from == 0 || began < from {
				from = began
			}
			to = max(to, o.At)
		}
	}
	produced, _, err := ledger.Read[ledger.Produced](k.dir, ledger.KindProduced)
	came, went := 0, 0
	for _, p := range produced {
		if p.State == ledger.Acked && p.Partition != partition && from <= p.At && p.At < to {
			came++
		}
	}
	for _, o := range done {
		if o.Partition != partition && from <= o.At && o.At < to {
			went++
		}
	}
	return float64(went) / float64(max(came, 1)), err
}

// hung is a worker one of whose handlers never returns, and that message.
func (k *kafkaBench) hung(ctx context.Context, n int, cfg worker.Config) (p *rig.Process, id string, err error) {
	if err := k.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, "", err
	}
	id = load.ID(k.name, 0, n/8)
	cfg.Faults = []worker.Fault{{Kind: worker.Hang, IDs: []string{id}, For: time.Hour}}
	p, err = k.start("w0", cfg)
	return p, id, err
}

var stuckLine = regexp.MustCompile(`msg="handler does not return".* id=(\S+) .*age=(\S+)`)

// named waits for what the log says of the handler that does not return: whose message, and how old it was.
func (k *kafkaBench) named(ctx context.Context, p *rig.Process) (place string, age time.Duration, err error) {
	err = poll(ctx, 30*time.Second, "the log names the handler", func() (bool, error) {
		log, err := os.ReadFile(k.logOf(p))
		if err != nil {
			return false, err
		}
		found := stuckLine.FindStringSubmatch(string(log))
		if found == nil {
			return false, nil
		}
		place = found[1]
		age, err = time.ParseDuration(found[2])
		return err == nil, err
	})
	return place, age, err
}

// place is where a message of a load is.
func (k *kafkaBench) place(id string) (string, int32, error) {
	produced, _, err := ledger.Read[ledger.Produced](k.dir, ledger.KindProduced)
	for _, p := range produced {
		if p.ID == id && p.State == ledger.Acked {
			return fmt.Sprintf("%s/%d/%d", p.Source, p.Partition, p.Offset), p.Partition, err
		}
	}
	return "", 0, errors.Join(err, fmt.Errorf("%s was not sent", id))
}

// hungForEver has the default: the message waits for its handler, and all else goes on. Then the worker is unhealthy, and ends with
// another code than 0.
func hungForEver(ctx context.Context, k *kafkaBench) (*Outcome, error) {
	cfg := k.config(1000)
	cfg.Timeout, cfg.DrainTimeout = 2*time.Second, 4*time.Second
	p, id, err := k.hung(ctx, k.env.N(20_000, 2_000), cfg)
	if err != nil {
		return nil, err
	}
	place, partition, err := k.place(id)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, time.Minute, "all but one partition has no lag", func() (bool, error) {
		at, err := k.rig.Positions(ctx, k.name, k.name)
		for _, p := range at {
			if p.Committed != p.End && int32(p.Partition) != partition {
				return false, err
			}
		}
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	var health string
	if k.env.Scale >= 0.5 { // it is unhealthy a minute after
		err = poll(ctx, 2*time.Minute, "the worker is unhealthy", func() (bool, error) { health = p.Last().Err; return health != "", nil })
		if err != nil {
			return nil, err
		}
	}
	told, age, err := k.named(ctx, p)
	if err != nil {
		return nil, err
	}
	fault := k.journal.begin(ledger.Fault{Kind: "SIGTERM with a stuck handler", Target: p.Name})
	code, err := p.Terminate(cfg.DrainTimeout + 15*time.Second)
	if err = errors.Join(err, k.journal.end(fault)); err != nil {
		return nil, err
	}
	if _, err := k.start("w1", cfg); err != nil {
		return nil, err
	}
	if err := k.awaitDrained(ctx, time.Minute); err != nil {
		return nil, err
	}
	outcome, err := k.finish(ctx, check.Rules{}) // the hung one was the only one open
	if err != nil {
		return nil, err
	}
	outcome.Must(told == place && age <= cfg.Timeout+time.Second, "hung: the log names %q after %v instead of %q within %v", told, age, place, cfg.Timeout+time.Second)
	outcome.Must(code == worker.ExitDrain, "hung: exit code %d instead of %d", code, worker.ExitDrain)
	outcome.Note("a handler that never returns: named after %v (time-out %v), the other partitions without lag, health %q, exit code %d, handled again by the next process",
		age, cfg.Timeout, health, code)
	return outcome, nil
}

// hungLetGo has RetryStuck: the message fails at its time-outs, and is a dead letter in the end.
func hungLetGo(ctx context.Context, k *kafkaBench) (*Outcome, error) {
	k.deadly = true
	cfg := k.config(1000)
	cfg.Timeout, cfg.DrainTimeout, cfg.RetryStuck, cfg.MaxAttempts = time.Second, 4*time.Second, true, 2
	p, id, err := k.hung(ctx, k.env.N(20_000, 2_000), cfg)
	if err != nil {
		return nil, err
	}
	place, _, err := k.place(id)
	if err != nil {
		return nil, err
	}
	if err := k.awaitDrained(ctx, time.Minute); err != nil {
		return nil, err
	}
	told, age, err := k.named(ctx, p)
	if err != nil {
		return nil, err
	}
	stuck := p.Last().Stats["stuck"]
	outcome, err := k.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(k.dir, worker.Fault{IDs: []string{id}})
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "let go: %d messages whose fate is not the planned one: %.200q", len(wrong), wrong)
	outcome.Must(told == place && age <= cfg.Timeout+time.Second, "let go: the log names %q after %v instead of %q within %v", told, age, place, cfg.Timeout+time.Second)
	outcome.Note("let go of at its time-out of %v: a dead letter after %d attempts, no lag, %d goroutines that never return", cfg.Timeout, cfg.MaxAttempts, stuck)
	return outcome, nil
}
