package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// soak is H3a: a load that goes on, and a fault every while, for long.
func soak(ctx context.Context, env *Env) (*Outcome, error) { return bothAtOnce(ctx, env, soakOnce) }

func soakOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes, pause = 2, 10 * time.Millisecond
	// By the square, so that a small run is short: an hour, 9 s at a twentieth, and never under 30 s.
	length := env.For(time.Duration(env.Scale*float64(time.Hour)), 30*time.Second)
	every := min(30*time.Second, length/6)
	cfg := run.config
	cfg.Delay = 2 * time.Millisecond
	workers, err := run.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	if err := run.calm(ctx); err != nil {
		return nil, err
	}
	s := &soaking{run: run, cfg: cfg, workers: workers, random: env.Rand("soak " + run.kind), began: workers[0].Last()}
	var working sync.WaitGroup
	var produceErr error
	watched, stop := context.WithCancel(ctx)
	working.Go(func() {
		produceErr = run.produce(ctx, load.Spec{Messages: int(2 * length / pause), Producers: 2, Every: pause})
	})
	working.Go(func() { s.watch(watched) })
	err = s.run.soak(ctx, s, length, every)
	if err == nil {
		err = poll(ctx, length+2*time.Minute, "the producers are done", func() (bool, error) {
			return int64(2*length/pause) <= run.sent.Acked.Load()+run.sent.Unknown.Load()+run.sent.Failed.Load(), nil
		})
	}
	if err == nil {
		err = run.drained(ctx, 3*time.Minute)
	}
	if err == nil {
		err = run.calm(ctx)
	}
	ended := workers[0].Last()
	stop()
	working.Wait()
	if err = errors.Join(err, produceErr); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{Duplicates: len(s.faults) * processes * run.bound})
	if err != nil {
		return nil, err
	}
	s.judge(outcome, ended, length)
	return outcome, nil
}

// soaking is one run of soak. The first worker is never killed: its memory tells.
type soaking struct {
	run     *either
	cfg     worker.Config
	workers []*rig.Process
	random  *rand.Rand
	faults  []string
	began   rig.Report

	memory []int64 // of the first worker, second by second; watch's until it has ended
}

// watch notes the first worker's memory.
func (s *soaking) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.memory = append(s.memory, s.workers[0].Last().RSS)
		case <-ctx.Done():
			return
		}
	}
}

// soak does one fault after another.
func (b *bench) soak(ctx context.Context, s *soaking, length, every time.Duration) error {
	for end := time.Now().Add(length); time.Now().Add(every).Before(end); {
		next := time.Now().Add(every)
		faults := s.choice()
		fault := faults[s.random.IntN(len(faults))]
		s.faults = append(s.faults, fault.name)
		if err := fault.do(ctx); err != nil {
			return fmt.Errorf("fault %d, %s: %w", len(s.faults), fault.name, err)
		}
		if err := sleep(ctx, time.Until(next)); err != nil {
			return err
		}
	}
	return nil
}

// fault is one that a soak may draw.
type fault struct {
	name string
	do   func(context.Context) error
}

// choice are the faults of the other scenarios, each as short as it goes.
func (s *soaking) choice() []fault {
	const short = 2 * time.Second
	victim := len(s.workers) - 1
	again := func(end func(*rig.Process) error) func(context.Context) error {
		return func(ctx context.Context) error {
			p := s.workers[victim]
			err := s.run.journal.during(ledger.Fault{Kind: "restart", Target: p.Name}, func() error { return end(p) })
			if err != nil {
				return err
			}
			if s.workers[victim], err = s.run.start(fmt.Sprintf("w%d", victim), s.cfg); err != nil {
				return err
			}
			return awaitReady(ctx, s.workers[victim])
		}
	}
	toxic := func(name string, toxics ...rig.Toxic) fault {
		return fault{name, func(ctx context.Context) error { return s.run.toxic(ctx, name, short, toxics...) }}
	}
	return []fault{
		{"SIGKILL", again((*rig.Process).Kill)},
		{"SIGTERM", again(func(p *rig.Process) error { _, err := p.Terminate(30 * time.Second); return err })},
		{"SIGSTOP", func(ctx context.Context) error {
			return s.run.freeze(ctx, s.workers[s.random.IntN(len(s.workers))], short)
		}},
		{"cut", func(context.Context) error {
			return s.run.journal.during(ledger.Fault{Kind: "cut"}, func() error { s.run.proxy.CutAll(); return nil })
		}},
		{"sink down", s.sinkDown},
		toxic("black hole", rig.Toxic{Type: rig.Stall}, rig.Toxic{Type: rig.Stall, Up: true}),
		toxic("latency", rig.Toxic{Type: "latency", Attributes: map[string]any{"latency": 300}}),
		toxic("short-lived connections", rig.Toxic{Type: rig.Life, Attributes: map[string]any{"min": 500, "max": 1500}}),
		toxic("a byte at a time", rig.Toxic{Type: rig.Crumble}, rig.Toxic{Type: rig.Crumble, Up: true}),
	}
}

// sinkDown takes the sink away, and gives it back.
func (s *soaking) sinkDown(ctx context.Context) error {
	tell := func(command worker.Command) (err error) {
		for _, p := range s.workers {
			err = errors.Join(err, p.Send(command))
		}
		return err
	}
	return s.run.journal.during(ledger.Fault{Kind: "sink down", Clean: true}, func() error {
		return errors.Join(tell(worker.Command{Down: true}), sleep(ctx, 2*time.Second), tell(worker.Command{Up: true}))
	})
}

func (s *soaking) judge(outcome *Outcome, ended rig.Report, length time.Duration) {
	slope := growth(s.memory)
	if length >= 30*time.Minute {
		outcome.Must(slope <= 1<<20, "memory grows by %.2f MiB in 10 minutes", slope/(1<<20))
	}
	outcome.Must(ended.Goroutines <= s.began.Goroutines+5, "%d goroutines, %d at the beginning", ended.Goroutines, s.began.Goroutines)
	outcome.Must(ended.FDs <= s.began.FDs+5, "%d descriptors, %d at the beginning", ended.FDs, s.began.FDs)
	outcome.Note("%d messages in %.0f s, %d faults: %q", outcome.Results[0].Acked, length.Seconds(), len(s.faults), s.faults)
	outcome.Note("of the worker that lived through: memory %+.2f MiB in 10 minutes, goroutines %d then %d, descriptors %d then %d",
		slope/(1<<20), s.began.Goroutines, ended.Goroutines, s.began.FDs, ended.FDs)
}

// growth is the slope of a line through what was measured second by second, after the first sixth, in bytes per 10 minutes.
func growth(seconds []int64) float64 {
	seconds = seconds[len(seconds)/6:]
	n := float64(len(seconds))
	if n < 2 {
		return 0
	}
	var sumX, sumY, sumXY, sumXX float64
	for i, y := range seconds {
		x := float64(i)
		sumX, sumY, sumXY, sumXX = sumX+x, sumY+float64(y), sumXY+x*float64(y), sumXX+x*x
	}
	return (n*sumXY - sumX*sumY) / (n*sumXX - sumX*sumX) * 600
}

// bounces is H3b: members of one process start and stop all at once, again and again, while messages flow.
func bounces(ctx context.Context, env *Env) (*Outcome, error) {
	return bothAtOnce(ctx, env, bouncesOnce)
}

func bouncesOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const members = 10
	times := env.Times(50, 5)
	n := env.N(40_000, 4_000)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	// A quorum queue counts what a stop hands back, and not why: package rabbitmq says what that costs each consumer at most.
	run.deadly = run.kind == "rabbitmq"
	cfg := run.config
	cfg.Members, cfg.Concurrency, cfg.Bounces, cfg.Delay = members, 2, times, 2*time.Millisecond
	bouncing := run.journal.begin(ledger.Fault{Kind: "starts and stops"})
	p, err := run.start("w0", cfg)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, 10*time.Minute, "all members have started and stopped often enough", func() (bool, error) {
		return p.Last().Stats["bounces"] >= int64(members*times), nil
	})
	if err = errors.Join(err, run.journal.end(bouncing)); err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	last := p.Last()
	outcome, err := run.finish(ctx, check.Rules{Duplicates: members * times * run.bound})
	if err != nil {
		return nil, err
	}
	slowest := time.Duration(last.Stats["slowest_stop_ms"]) * time.Millisecond
	outcome.Must(last.Stats["bounces_failed"] == 0, "%d stops were not clean: see the log", last.Stats["bounces_failed"])
	outcome.Must(last.Stats["goroutines_left"] <= 5, "%d goroutines were left", last.Stats["goroutines_left"])
	dead := outcome.Results[0].Dead
	outcome.Must(dead <= members*(times+1), "%d dead letters, more than one for each start of a consumer", dead)
	outcome.Note("%d messages were taken for what kills processes", dead)
	outcome.Note("%d members started and stopped %d times each, %d messages: the slowest stop took %v, %d goroutines were left, %d messages repeated",
		members, times, n, slowest, last.Stats["goroutines_left"], outcome.Total(check.Duplicates))
	return outcome, nil
}
