package scenario

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// broker is what can be killed and started again.
type broker interface {
	Kill() error
	Start() error
	PID() (int, error)
}

// idleness is what workers do while a broker is down.
type idleness struct {
	since   time.Time
	dials   int
	cpu     time.Duration
	logged  int64
	workers []*rig.Process
	bench   *bench
}

// idle begins to measure.
func (b *bench) idle(workers []*rig.Process) *idleness {
	i := &idleness{since: time.Now(), dials: b.proxy.Dials(), workers: workers, bench: b}
	i.cpu, i.logged = i.now()
	return i
}

func (i *idleness) now() (cpu time.Duration, logged int64) {
	for _, p := range i.workers {
		cpu += processorTime(p.PID())
		logged += lines(i.bench.logOf(p))
	}
	return cpu, logged
}

// over says how the workers did since idle, per second and worker.
func (i *idleness) over() (dials, logged, cpu float64) {
	seconds := time.Since(i.since).Seconds() * float64(len(i.workers))
	spent, written := i.now()
	return float64(i.bench.proxy.Dials()-i.dials) / seconds, float64(written-i.logged) / seconds, (spent - i.cpu).Seconds() / seconds
}

// processorTime is what a process has used, 0 when the system does not tell.
func processorTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// lines counts the lines of a file.
func lines(file string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return int64(strings.Count(string(text), "\n"))
}

// crash kills a broker, leaves it down for a while, and starts it again. What the workers do meanwhile is noted. The fault is over when
// back returns.
func (b *bench) crash(ctx context.Context, target broker, workers []*rig.Process, down time.Duration, back func(context.Context) error) (note string, err error) {
	pid, err := target.PID()
	if err != nil {
		return "", err
	}
	err = b.journal.during(ledger.Fault{Kind: "broker SIGKILL", Target: strconv.Itoa(pid)}, func() error {
		if err := target.Kill(); err != nil {
			return err
		}
		if err := sleep(ctx, time.Second); err != nil { // the first attempts are allowed to be quick
			return err
		}
		idle := b.idle(workers)
		if err := sleep(ctx, down-time.Second); err != nil {
			return err
		}
		dials, logged, cpu := idle.over()
		note = fmt.Sprintf("broker down %.0f s: per worker %.1f connections/s, %.1f log lines/s, %.0f %% of a core", down.Seconds(), dials, logged, 100*cpu)
		if err := target.Start(); err != nil {
			return err
		}
		began, handled := time.Now(), b.handled()
		if err := poll(ctx, time.Minute, "a message after the outage", func() (bool, error) { return b.handled() > handled, nil }); err != nil {
			return err
		}
		note += fmt.Sprintf("; first message %.1f s after", time.Since(began).Seconds())
		return back(ctx)
	})
	return note, err
}

// afterShare waits until a share of n messages is handled.
func (b *bench) afterShare(ctx context.Context, n int, share float64) error {
	due := int64(share * float64(n))
	return poll(ctx, 3*time.Minute, fmt.Sprintf("%d of %d handled", due, n), func() (bool, error) { return b.handled() >= due, nil })
}

// killKafkaBroker is B11a.
func killKafkaBroker(ctx context.Context, env *Env) (*Outcome, error) {
	const processes, partitions, window = 2, 8, 1000
	bench, err := newKafkaBench(ctx, env, partitions)
	if err != nil {
		return nil, err
	}
	defer bench.close()
	n, kills := env.N(100_000, 4_000), env.Times(5, 1)
	if err := bench.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := bench.config(window)
	cfg.Delay = pace(n, kills, processes*cfg.Concurrency)
	workers, err := bench.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	var notes []string
	for i := range kills {
		if err := bench.afterShare(ctx, n, float64(i+1)/float64(kills+1)); err != nil {
			return nil, err
		}
		before := bench.total("generations")
		note, err := bench.crash(ctx, bench.rig, workers, env.For(10*time.Second, 3*time.Second), func(ctx context.Context) error {
			return bench.whole(ctx, processes, before+processes) // the broker lets members wait for the time-outs of those that it had before
		})
		if err != nil {
			return nil, err
		}
		notes = append(notes, note)
	}
	if err := bench.awaitDrained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{Duplicates: kills * processes * window})
	if err != nil {
		return nil, err
	}
	outcome.Notes = append(outcome.Notes, notes...)
	outcome.Note("%d messages, %d kills of the broker", n, kills)
	return outcome, nil
}

// commitsFail is B11b: every OffsetCommit is dropped for a while, and records still come.
func commitsFail(ctx context.Context, env *Env) (*Outcome, error) {
	const processes, partitions, window = 2, 8, 1000
	bench, err := newKafkaBench(ctx, env, partitions)
	if err != nil {
		return nil, err
	}
	defer bench.close()
	n := env.N(100_000, 8_000)
	if err := bench.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := bench.config(window)
	cfg.Delay = pace(n, 1, processes*cfg.Concurrency)
	if _, err := bench.startAll(ctx, processes, cfg); err != nil {
		return nil, err
	}
	if err := bench.afterShare(ctx, n, 0.2); err != nil {
		return nil, err
	}
	err = bench.journal.during(ledger.Fault{Kind: "commits are dropped"}, func() error {
		remove, err := bench.rig.Proxy.Add(rig.Toxic{Type: rig.DropCommits, Up: true})
		if err != nil {
			return err
		}
		err = sleep(ctx, env.For(60*time.Second, 15*time.Second))
		if err != nil {
			return err
		}
		return remove()
	})
	if err != nil {
		return nil, err
	}
	lifted := time.Now()
	if err := bench.awaitDrained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	drained := time.Since(lifted)
	outcome, err := bench.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	ahead, err := furthestAhead(bench.dir)
	if err != nil {
		return nil, err
	}
	outcome.Must(ahead <= int64(cfg.Kafka.Window), "the sink was %d messages of a partition ahead of its commit, over the window of %d", ahead, cfg.Kafka.Window)
	outcome.Note("%d messages; the sink was at most %d messages of a partition ahead of its commit (window %d); drained %.1f s after commits passed again",
		n, ahead, cfg.Kafka.Window, drained.Seconds())
	return outcome, nil
}

// killRabbitNode is C7: publishers and consumers over kills of the node, and a long outage.
func killRabbitNode(ctx context.Context, env *Env) (*Outcome, error) {
	return killRabbitNodeWith(ctx, env, amqp.Table{"x-queue-type": "quorum"})
}

// killRabbitNodeClassic is C7 with the older kind of queue.
func killRabbitNodeClassic(ctx context.Context, env *Env) (*Outcome, error) {
	return killRabbitNodeWith(ctx, env, amqp.Table{"x-queue-type": "classic"})
}

func killRabbitNodeWith(ctx context.Context, env *Env, arguments amqp.Table) (*Outcome, error) {
	const processes, prefetch = 2, 200
	bench, err := newRabbitBench(env, arguments)
	if err != nil {
		return nil, err
	}
	defer bench.abandon()
	n, kills := env.N(110_000, 4_000), env.Times(5, 1)
	publishers := env.Times(100, 10)
	const between = 8 * time.Second // so long are the publishers at work from one outage to the next, and the workers a little longer
	cfg := bench.config(prefetch)
	cfg.Delay = time.Duration(kills+1) * between * processes * time.Duration(cfg.Concurrency) / time.Duration(n)
	workers, err := bench.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	var producing sync.WaitGroup
	var produceErr error
	producing.Go(func() { // side by side with the faults: each publisher sends for as long as those last
		every := time.Duration(kills+1) * between * time.Duration(publishers) / time.Duration(n)
		produceErr = bench.produce(ctx, load.Spec{Messages: n, Producers: publishers, Keys: max(100, publishers), Every: every})
	})
	var notes []string
	for i := range kills + 1 {
		due := int64(float64(n) * float64(i+1) / float64(kills+2))
		err := poll(ctx, 3*time.Minute, fmt.Sprintf("%d are published", due), func() (bool, error) { return bench.sent.Acked.Load()+bench.sent.Unknown.Load() >= due, nil })
		if err != nil {
			return nil, err
		}
		down := env.For(5*time.Second, 2*time.Second)
		if i == kills {
			down = env.For(120*time.Second, 10*time.Second)
		}
		note, err := bench.crash(ctx, bench.rig, workers, down, func(context.Context) error { return nil })
		if err != nil {
			return nil, err
		}
		notes = append(notes, note)
	}
	producing.Wait()
	if produceErr != nil {
		return nil, produceErr
	}
	if err := bench.awaitDrained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{Duplicates: (kills + 1) * processes * prefetch})
	if err != nil {
		return nil, err
	}
	outcome.Notes = append(outcome.Notes, notes...)
	outcome.Note("%d messages from %d publishers (%d of unknown fate), %d kills of the node, the last with a long outage", n, publishers, bench.sent.Unknown.Load(), kills+1)
	return outcome, nil
}
