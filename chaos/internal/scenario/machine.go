package scenario

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// scarcity is H2: processes without descriptors, with little memory, and with a processor that stutters.
func scarcity(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	for _, variant := range []func(context.Context, *Env, *either) (*Outcome, error){noDescriptors, littleMemory, stutter} {
		outcome, err := bothAtOnce(ctx, env, variant)
		if outcome != nil {
			all.add(outcome)
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// wallClock is H1: the clock that stamps dead letters jumps. Kafka refuses records more than an hour ahead of its own.
func wallClock(ctx context.Context, env *Env) (*Outcome, error) {
	return bothAtOnce(ctx, env, wallClockOnce)
}

func wallClockOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	n := env.N(20_000, 3_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	run.deadly = true
	rejected := worker.Fault{Kind: worker.Reject, Every: 20, Rest: 11}
	cfg := run.config
	cfg.Faults = []worker.Fault{rejected}
	cfg.Clock = []time.Duration{0, time.Hour, -time.Hour, 2 * time.Hour, 24 * time.Hour, -24 * time.Hour, 59 * time.Minute}
	if _, err := run.startAll(ctx, 1, cfg); err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	wrong, err := wronglyDead(run.dir, rejected)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "fates that are not the planned ones: %.300q", wrong)
	outcome.Must(outcome.Total(check.Duplicates) == 0, "%d messages came twice", outcome.Total(check.Duplicates))
	refused, err := refusedStamps(run.dir)
	if err != nil {
		return nil, err
	}
	outcome.Must(run.kind != "kafka" || refused > 0, "the broker never refused a time")
	outcome.Note("%d messages, %d dead letters, stamped by a clock off by up to a day: %d requests refused for it", n, outcome.Results[0].Dead, refused)
	return outcome, nil
}

// refusedStamps counts answers of a broker that a record's time is too far from its own.
func refusedStamps(dir string) (n int, err error) {
	const invalidTimestamp = 32
	events, _, err := ledger.Read[wire.Event](dir, ledger.KindWire)
	for _, event := range events {
		if event.Kind == wire.ProduceAnswer && event.Code == invalidTimestamp {
			n++
		}
	}
	return n, err
}

// noDescriptors lets a process have 64 descriptors, and then no further one while its connections are cut.
func noDescriptors(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const most = 64
	n := env.N(20_000, 3_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	length := env.For(30*time.Second, 5*time.Second)
	cfg := run.config
	cfg.Delay = 2 * time.Millisecond
	p, err := run.start("w0", cfg, "prlimit", fmt.Sprintf("--nofile=%d", most))
	if err != nil {
		return nil, err
	}
	if err := run.afterShare(ctx, n, 0.3); err != nil {
		return nil, err
	}
	open := p.Last().FDs
	var idle *idleness
	err = run.journal.during(ledger.Fault{Kind: "no descriptors", Target: p.Name}, func() error {
		if err := limitDescriptors(p, 1); err != nil { // those that are open stay
			return err
		}
		run.proxy.CutAll()
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
		idle = run.idle([]*rig.Process{p})
		return errors.Join(sleep(ctx, length), limitDescriptors(p, most))
	})
	if err != nil {
		return nil, err
	}
	_, logged, cpu := idle.over()
	lifted, before := time.Now(), run.handled()
	if err := poll(ctx, time.Minute, "a message after the fault", func() (bool, error) { return run.handled() > before, nil }); err != nil {
		return nil, err
	}
	again := time.Since(lifted)
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: run.bound})
	if err != nil {
		return nil, err
	}
	outcome.Must(cpu <= 0.3, "%.0f %% of a core without descriptors", 100*cpu)
	outcome.Note("%d descriptors were open of %d; none more for %.0f s, every connection cut: %.1f log lines/s, %.0f %% of a core; first message %.1f s afterwards",
		open, most, length.Seconds(), logged, 100*cpu, again.Seconds())
	return outcome, nil
}

// limitDescriptors sets the soft limit of a process that runs.
func limitDescriptors(p *rig.Process, n uint64) error {
	var old unix.Rlimit
	if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return err
	}
	return unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}, nil)
}

// littleMemory gives a process messages of a megabyte each, many times more than its memory.
func littleMemory(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const memory, size = 256 << 20, 1 << 20
	n := env.N(2_000, 300)
	if err := run.produce(ctx, load.Spec{Messages: n, Size: size - 1024}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.Concurrency, cfg.MaxUnsettledBytes, cfg.Delay = 2, 32<<20, 5*time.Millisecond
	if run.kind == "kafka" {
		kafka := *cfg.Kafka
		kafka.MaxBytes, kafka.MaxPartitionBytes = 4<<20, 1<<20
		cfg.Kafka = &kafka
	}
	p, err := run.start("w0", cfg, "env", fmt.Sprintf("GOMEMLIMIT=%d", memory*3/4))
	if err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	outcome.Must(p.PeakRSS() <= memory, "%d MiB of memory", p.PeakRSS()>>20)
	outcome.Note("%d messages of 1 MiB, MaxUnsettledBytes 32 MiB: at most %d MiB resident", n, p.PeakRSS()>>20)
	return outcome, nil
}

// stutter stops one of two processes for 200 ms, and lets it run for 200 ms, again and again.
func stutter(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes, each = 2, 200 * time.Millisecond
	length := env.For(60*time.Second, 8*time.Second)
	n := env.N(60_000, 6_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.Delay = length * processes * time.Duration(cfg.Concurrency) / time.Duration(n)
	workers, err := run.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	if err := run.afterShare(ctx, n, 0.1); err != nil {
		return nil, err
	}
	moved, stops := run.total("generations")+run.total("sessions"), 0
	err = run.journal.during(ledger.Fault{Kind: "SIGSTOP and SIGCONT", Target: workers[0].Name}, func() error {
		for end := time.Now().Add(length); time.Now().Before(end); stops++ {
			err := errors.Join(workers[0].Signal(syscall.SIGSTOP), sleep(ctx, each), workers[0].Signal(syscall.SIGCONT), sleep(ctx, each))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	moved = run.total("generations") + run.total("sessions") - moved
	if err := run.drained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: run.bound})
	if err != nil {
		return nil, err
	}
	outcome.Note("%d messages, one of two processes stopped %d times for 200 ms: %d rebalances or reconnects, %d repeats", n, stops, moved, outcome.Total(check.Duplicates))
	return outcome, nil
}
