package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// either is a run on one of the two rigs, for scenarios that try both.
type either struct {
	*bench
	kind    string
	direct  string // the broker, past the proxy
	config  worker.Config
	bound   int // of what a process may repeat
	produce func(context.Context, load.Spec) error
	drained func(context.Context, time.Duration) error
	finish  func(context.Context, check.Rules) (*Outcome, error)
	close   func()
	// whole waits for a group of so many members, and so many generations in sum. A queue has none.
	whole func(ctx context.Context, members int, generations int64) error
}

// newEither makes a run on "kafka" or "rabbitmq": with a window of 1,000 messages, or a prefetch of 200.
func newEither(ctx context.Context, env *Env, kind string) (*either, error) {
	if kind == "kafka" {
		const window = 1000
		b, err := newKafkaBench(ctx, env, 8)
		if err != nil {
			return nil, err
		}
		return &either{b.bench, kind, b.rig.Direct(), b.config(window), window, b.produce, b.awaitDrained, b.finish, b.close, b.whole}, nil
	}
	return rabbitEither(env, amqp.Table{"x-queue-type": "quorum"})
}

// rabbitEither is a run on a queue of RabbitMQ with such arguments.
func rabbitEither(env *Env, arguments amqp.Table) (*either, error) {
	const prefetch = 200
	b, err := newRabbitBench(env, arguments)
	if err != nil {
		return nil, err
	}
	return &either{b.bench, "rabbitmq", b.rig.Direct(), b.config(prefetch), prefetch, b.produce, b.awaitDrained, b.finish, b.abandon, alone}, nil
}

func alone(context.Context, int, int64) error { return nil }

// onBoth tries something on either rig.
func onBoth(ctx context.Context, env *Env, try func(context.Context, *Env, *either) (*Outcome, error)) (*Outcome, error) {
	all := new(Outcome)
	for _, kind := range []string{"kafka", "rabbitmq"} {
		if err := all.try(ctx, env, kind, try); err != nil {
			return all, fmt.Errorf("%s: %w", kind, err)
		}
	}
	return all, nil
}

// bothAtOnce tries something on either rig at the same time: for scenarios that mostly wait.
func bothAtOnce(ctx context.Context, env *Env, try func(context.Context, *Env, *either) (*Outcome, error)) (*Outcome, error) {
	if _, err := env.Kafka(); err != nil {
		return nil, err
	}
	if _, err := env.RabbitMQ(); err != nil {
		return nil, err
	}
	var outcomes [2]Outcome
	var errs [2]error
	var trying sync.WaitGroup
	for i, kind := range []string{"kafka", "rabbitmq"} {
		trying.Go(func() {
			if err := outcomes[i].try(ctx, env, kind, try); err != nil {
				errs[i] = fmt.Errorf("%s: %w", kind, err)
			}
		})
	}
	trying.Wait()
	outcomes[0].add(&outcomes[1])
	return &outcomes[0], errors.Join(errs[:]...)
}

// try adds the outcome of one run on a rig.
func (o *Outcome) try(ctx context.Context, env *Env, kind string, try func(context.Context, *Env, *either) (*Outcome, error)) error {
	run, err := newEither(ctx, env, kind)
	if err != nil {
		return err
	}
	defer run.close()
	outcome, err := try(ctx, env, run)
	if err != nil {
		return err
	}
	for i, missed := range outcome.Missed {
		outcome.Missed[i] = kind + ": " + missed
	}
	for i, note := range outcome.Notes {
		outcome.Notes[i] = kind + ": " + note
	}
	o.add(outcome)
	return nil
}

// toxic adds toxics for a while, as a fault.
func (b *bench) toxic(ctx context.Context, name string, length time.Duration, toxics ...rig.Toxic) error {
	return b.journal.during(ledger.Fault{Kind: name}, func() error {
		var removes []func() error
		for _, toxic := range toxics {
			remove, err := b.proxy.Add(toxic)
			if err != nil {
				return err
			}
			removes = append(removes, remove)
		}
		failure := sleep(ctx, length)
		for _, remove := range slices.Backward(removes) {
			if err := remove(); err != nil {
				return err
			}
		}
		return failure
	})
}

// blackHole is D1: nothing goes through, and nothing is closed; both ways, and one way only.
func blackHole(ctx context.Context, env *Env) (*Outcome, error) {
	up, down := rig.Toxic{Type: rig.Stall, Up: true}, rig.Toxic{Type: rig.Stall}
	all := new(Outcome)
	for _, kind := range []string{"kafka", "rabbitmq"} {
		for _, hole := range []struct {
			name   string
			toxics []rig.Toxic
		}{{"both ways", []rig.Toxic{up, down}}, {"to the broker", []rig.Toxic{up}}, {"from the broker", []rig.Toxic{down}}} {
			err := all.try(ctx, env, kind, func(ctx context.Context, env *Env, run *either) (*Outcome, error) {
				return blackHoleOnce(ctx, env, run, "black hole "+hole.name, hole.toxics)
			})
			if err != nil {
				return all, fmt.Errorf("%s, %s: %w", kind, hole.name, err)
			}
		}
	}
	return all, nil
}

func blackHoleOnce(ctx context.Context, env *Env, run *either, name string, toxics []rig.Toxic) (*Outcome, error) {
	const processes = 2
	n := env.N(40_000, 4_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.Delay = pace(n, 3, processes*cfg.Concurrency)
	if _, err := run.startAll(ctx, processes, cfg); err != nil {
		return nil, err
	}
	if err := run.afterShare(ctx, n, 0.3); err != nil {
		return nil, err
	}
	noticed := make(chan time.Duration, 1)
	began := time.Now()
	run.watch(func(_ rig.Conn, event wire.Event) {
		if event.Kind == wire.Closed {
			select {
			case noticed <- time.Since(began):
			default:
			}
		}
	})
	if err := run.toxic(ctx, name, env.For(60*time.Second, 35*time.Second), toxics...); err != nil {
		return nil, err
	}
	lifted, before := time.Now(), run.handled()
	if err := poll(ctx, time.Minute, "a message after the fault", func() (bool, error) { return run.handled() > before, nil }); err != nil {
		return nil, err
	}
	again := time.Since(lifted)
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: processes * run.bound})
	if err != nil {
		return nil, err
	}
	select {
	case after := <-noticed:
		outcome.Note("%s: the first connection was given up after %.1f s; first message %.1f s after its end", name, after.Seconds(), again.Seconds())
	default:
		outcome.Must(false, "%s: no connection was given up", name)
	}
	return outcome, nil
}

// badLink is D2: short-lived connections, then a slow link, then one that carries a byte at a time.
func badLink(ctx context.Context, env *Env) (*Outcome, error) { return onBoth(ctx, env, badLinkOnce) }

func badLinkOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes = 2
	n := env.N(100_000, 6_000)
	length := env.For(120*time.Second, 10*time.Second)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.Delay = 3 * length * processes * time.Duration(cfg.Concurrency) / time.Duration(n)
	if _, err := run.startAll(ctx, processes, cfg); err != nil {
		return nil, err
	}
	slow := map[string]any{"rate": 64}
	late := map[string]any{"latency": 300}
	phases := []struct {
		name   string
		toxics []rig.Toxic
	}{
		{"connections of 500 to 1,500 ms", []rig.Toxic{{Type: rig.Life, Attributes: map[string]any{"min": 500, "max": 1500}}}},
		{"300 ms and 64 kB/s", []rig.Toxic{
			{Type: "latency", Attributes: late}, {Type: "bandwidth", Attributes: slow}, {Type: "latency", Up: true, Attributes: late},
		}},
		{"a byte at a time", []rig.Toxic{{Type: rig.Crumble}, {Type: rig.Crumble, Up: true}}},
	}
	var notes []string
	dials := run.proxy.Dials()
	for _, phase := range phases {
		before := run.handled()
		if err := run.toxic(ctx, phase.name, length, phase.toxics...); err != nil {
			return nil, err
		}
		notes = append(notes, fmt.Sprintf("%s: %d messages in %.0f s", phase.name, run.handled()-before, length.Seconds()))
	}
	dials = run.proxy.Dials() - dials
	// What the phases kept from being handled takes as long again as they did.
	if err := run.drained(ctx, 3*length+3*time.Minute); err != nil {
		return nil, err
	}
	rules := check.Rules{Duplicates: n / 100}
	if run.kind == "rabbitmq" {
		// What came back three times is tried alone, and what is handed back for that goes to the end of a quorum queue: it comes
		// again behind everything else.
		rules = check.Rules{Duplicates: dials * run.bound, Slack: 3 * time.Minute}
	}
	outcome, err := run.finish(ctx, rules)
	if err != nil {
		return nil, err
	}
	outcome.Notes = append(outcome.Notes, notes...)
	outcome.Note("%d messages, %d connections", n, dials)
	return outcome, nil
}

// cutLink is D0: every connection is reset, again and again.
func cutLink(ctx context.Context, env *Env) (*Outcome, error) { return onBoth(ctx, env, cutLinkOnce) }

func cutLinkOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes = 2
	n, cuts := env.N(100_000, 4_000), env.Times(10, 2)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.Delay = pace(n, cuts, processes*cfg.Concurrency)
	if _, err := run.startAll(ctx, processes, cfg); err != nil {
		return nil, err
	}
	random := env.Rand("cuts " + run.kind)
	broken := 0
	for i := range cuts {
		if err := run.afterShare(ctx, n, (float64(i)+0.2+0.6*random.Float64())/float64(cuts)); err != nil {
			return nil, err
		}
		err := run.journal.during(ledger.Fault{Kind: "cut"}, func() error {
			before := run.total("generations")
			broken += run.proxy.CutAll()
			return run.whole(ctx, processes, before+processes)
		})
		if err != nil {
			return nil, err
		}
	}
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: cuts * processes * run.bound})
	if err != nil {
		return nil, err
	}
	outcome.Note("%d messages, %d cuts, %d connections reset", n, cuts, broken)
	return outcome, nil
}
