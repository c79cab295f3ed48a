package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// A step is where a process is killed: by itself at a fail-point, or by the proxy at what it sees.
type step struct {
	name string
	// up to so many times the step is passed before the kill.
	most int
	// at and draining are of a fail-point.
	at       string
	draining bool
	// wire is what the proxy sees. With lost, it never reaches the other side.
	wire wire.Kind
	lost bool
}

// inside are the steps within the process, in the order in which a message comes to them.
var inside = []step{
	{at: worker.AfterFetch, most: 1}, // the first fetch after an assignment
	{at: worker.AfterFetch, most: 8},
	{at: worker.BeforeHandler, most: 400},
	{at: worker.AfterHandled, most: 40},
	{at: worker.BeforeSink, most: 400},
	{at: worker.AfterSink, most: 400},
	{at: worker.WithinBatch, most: 8},
	{at: worker.AfterReported, most: 8},
	{at: worker.BeforeDead, most: 5},
	{at: worker.AfterDead, most: 5},
	{at: worker.AfterSettled, most: 8},
	{at: worker.BeforeLeaving, most: 1, draining: true},
	{at: worker.AfterReported, most: 1, draining: true},
	{at: worker.AfterSettled, most: 1, draining: true},
}

// onWire are the steps that the proxy sees.
func onWire(kind string) []step {
	if kind == "kafka" {
		return []step{
			{name: "commit sent and lost", wire: wire.Commit, most: 12, lost: true},
			{name: "commit sent", wire: wire.Commit, most: 12},
			{name: "commit answered", wire: wire.CommitAnswer, most: 12},
			{name: "dead letter sent and lost", wire: wire.Produce, most: 3, lost: true},
			{name: "dead letter confirmed", wire: wire.ProduceAnswer, most: 3},
		}
	}
	return []step{
		{name: "ack sent and lost", wire: wire.Ack, most: 12, lost: true},
		{name: "ack sent", wire: wire.Ack, most: 12},
		{name: "dead letter sent and lost", wire: wire.Publish, most: 3, lost: true},
		{name: "dead letter confirmed", wire: wire.Confirm, most: 3},
	}
}

// String is the step's name.
func (s step) String() string {
	switch {
	case s.name != "":
		return s.name
	case s.draining:
		return s.at + ", draining"
	case s.most == 1:
		return s.at + ", the first"
	}
	return s.at
}

// failPoints is A3.
func failPoints(ctx context.Context, env *Env) (*Outcome, error) {
	return onBoth(ctx, env, failPointsOnce)
}

func failPointsOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	steps := slices.Concat(inside, onWire(run.kind))
	times := env.Times(5, 1)
	var lives []step
	for range times {
		lives = append(lives, steps...)
	}
	// In a random order: a message that was in hand at many deaths in a row would rightly count as what kills the process.
	random := env.Rand("steps " + run.kind)
	random.Shuffle(len(lives), func(i, j int) { lives[i], lives[j] = lives[j], lives[i] })
	n := 800 * len(lives)
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	run.deadly = true
	cfg := run.config
	cfg.Batch = &worker.Batch{Size: 20, Timeout: 50 * time.Millisecond, Concurrency: 2}
	cfg.MaxAttempts, cfg.Backoff, cfg.Delay = 20, 20*time.Millisecond, 2*time.Millisecond
	rejected := worker.Fault{Kind: worker.Reject, Every: 40, Rest: 7}
	cfg.Faults = []worker.Fault{rejected}
	if cfg.Kafka != nil {
		kafka := *cfg.Kafka
		kafka.SessionTimeout, kafka.HeartbeatInterval = 1500*time.Millisecond, 300*time.Millisecond
		cfg.Kafka = &kafka
	}
	sweep := &sweep{run: run, cfg: cfg, random: random, hits: map[string]int{}}
	if err := sweep.all(ctx, lives); err != nil {
		return nil, err
	}
	if _, err := run.start("w0", cfg); err != nil {
		return nil, err
	}
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	rules := check.Rules{Duplicates: sweep.kills * run.bound}
	if run.kind == "rabbitmq" {
		// A quorum queue may forget the last acks before its channel ended, and bring their messages back a minute later, at its end:
		// https://github.com/rabbitmq/rabbitmq-server/issues/10327.
		rules.Slack = 10 * time.Minute
	}
	outcome, err := run.finish(ctx, rules)
	if err != nil {
		return nil, err
	}
	return outcome, sweep.judge(outcome, rejected, n, steps)
}

// judge adds what the checker does not know: who was to be rejected, and whether each step was hit.
func (s *sweep) judge(outcome *Outcome, rejected worker.Fault, n int, steps []step) error {
	again, wrong, err := fates(s.run.dir, rejected)
	if err != nil {
		return err
	}
	outcome.Must(len(wrong) == 0, "%d ids dead-lettered that were not rejected, or rejected and not dead-lettered: %.300q", len(wrong), wrong)
	outcome.Must(again <= s.kills*s.run.bound, "%d dead letters twice, of at most %d", again, s.kills*s.run.bound)
	outcome.Must(outcome.Total(check.Double) == 0, "%d messages both handled and dead-lettered", outcome.Total(check.Double))
	least := s.kills
	for _, step := range steps {
		least = min(least, s.hits[step.String()])
		outcome.Must(s.hits[step.String()] > 0, "no kill at the step %q", step)
	}
	outcome.Note("%d messages, %d steps, each hit %d times or more: %d kills; %d successes and %d dead letters repeated, at most %d for each kill",
		n, len(steps), least, s.kills, outcome.Total(check.Duplicates), again, s.run.bound)
	return nil
}

// sweep kills one process after the other.
type sweep struct {
	run    *either
	cfg    worker.Config
	random *rand.Rand
	kills  int
	hits   map[string]int // by step
}

// all kills at each of some steps, in their order.
func (s *sweep) all(ctx context.Context, lives []step) error {
	for _, step := range lives {
		if err := s.kill(ctx, step); err != nil {
			return fmt.Errorf("%v: %w", step, err)
		}
	}
	return nil
}

// kill lets a process live up to a step. One that ends before it gets there, as a drain may, is followed by another.
func (s *sweep) kill(ctx context.Context, at step) error {
	const tries = 6
	for range tries {
		n := 1 + s.random.IntN(at.most)
		p, err := s.live(ctx, at, n)
		if err != nil {
			return err
		}
		if p.ExitCode() == worker.ExitClean {
			continue
		}
		if p.ExitCode() != -1 {
			return fmt.Errorf("the worker ended with code %d: see its log", p.ExitCode())
		}
		s.kills++
		s.hits[at.String()]++
		fault := s.run.journal.begin(ledger.Fault{
			Kind: "SIGKILL " + at.String(), Target: fmt.Sprintf("%s %d", p.Name, p.PID()), Unsettled: int(p.Last().Unsettled),
		})
		return s.run.journal.end(fault)
	}
	return nil
}

// live starts a process, and returns when it has ended.
func (s *sweep) live(ctx context.Context, at step, n int) (*rig.Process, error) {
	cfg := s.cfg
	cfg.FailPoint = worker.FailPoint{At: at.at, N: n, Draining: at.draining}
	if at.draining {
		cfg.Delay = 20 * time.Millisecond // so that there is something to drain
	}
	p, err := s.run.start("w0", cfg)
	if err != nil {
		return nil, err
	}
	if at.wire != "" {
		s.arm(p, at, n)
		defer s.run.watch(nil)
	}
	if at.draining {
		err := poll(ctx, time.Minute, "the worker has begun", func() (bool, error) { return p.Last().Handled >= 20 || ended(p), nil })
		if err != nil {
			return nil, err
		}
		_, err = p.Terminate(30 * time.Second)
		return p, err
	}
	err = poll(ctx, time.Minute, fmt.Sprintf("%v, the %d. time", at, n), func() (bool, error) { return ended(p), nil })
	return p, err
}

// arm makes the proxy kill a process at the n-th event of a kind, before that is carried on. When it is to be lost, the connection breaks first.
func (s *sweep) arm(p *rig.Process, at step, n int) {
	var seen atomic.Int64
	s.run.watch(func(_ rig.Conn, event wire.Event) {
		if event.Kind != at.wire || seen.Add(1) != int64(n) {
			return
		}
		if err := p.Signal(syscall.SIGKILL); err != nil {
			s.run.env.Logf("kill %s: %v", p.Name, err)
		}
		if at.lost {
			s.run.proxy.CutAll()
		}
	})
}

// ended says whether a process is gone.
func ended(p *rig.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// fates compares who was rejected with who is dead: all of them and nobody else, and none of them succeeded. Dead letters may repeat
// after a crash; again is how many did.
func fates(dir string, rejected worker.Fault) (again int, wrong []string, err error) {
	evidence, err := check.Read(dir)
	if err != nil {
		return 0, nil, err
	}
	dead, done := map[string]int{}, map[string]bool{}
	for _, entry := range evidence.Dead {
		dead[entry.ID]++
		if dead[entry.ID] > 1 {
			again++
		}
	}
	for _, entry := range evidence.Sink {
		done[entry.ID] = done[entry.ID] || entry.Stage == ledger.Success
	}
	for _, entry := range evidence.Produced {
		struck := rejected.Strikes(entry.ID)
		if entry.State == ledger.Acked && (struck != (dead[entry.ID] > 0) || struck == done[entry.ID]) {
			wrong = append(wrong, fmt.Sprintf("%s (dead letters: %d, success: %v)", entry.ID, dead[entry.ID], done[entry.ID]))
		}
	}
	return again, wrong, nil
}
