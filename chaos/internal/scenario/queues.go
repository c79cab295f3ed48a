package scenario

import (
	"context"
	"errors"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// settledIn is how many messages the broker has settled per second over a while: what it has no more, and has acknowledged to
// nobody but consumers.
func (r *rabbitBench) settledIn(ctx context.Context, length time.Duration) (float64, error) {
	count := func() (int, error) {
		ready, unacked, err := r.rig.Depth(r.name)
		return ready + unacked, err
	}
	began := time.Now()
	before, err := count()
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, length); err != nil {
		return 0, err
	}
	after, err := count()
	return float64(before-after) / time.Since(began).Seconds(), err
}

// blocked is C5: the memory alarm goes off while messages are consumed, and some of them dead-lettered.
func blocked(ctx context.Context, env *Env) (*Outcome, error) {
	const processes, prefetch, rate = 2, 200, 800
	bench, err := newRabbitBench(env, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		return nil, err
	}
	defer bench.abandon()
	before, during := env.For(20*time.Second, 4*time.Second), env.For(60*time.Second, 8*time.Second)
	n := rate * int((2*before+during+5*time.Second)/time.Second)
	if err := bench.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	bench.deadly = true
	cfg := bench.config(prefetch)
	cfg.Delay = time.Duration(processes*cfg.Concurrency) * time.Second / rate
	// About forty are refused during the alarm: their dead letters wait, and their messages with them.
	rejected := worker.Fault{Kind: worker.Reject, Every: uint32(rate * int(during/time.Second) / 40), Rest: 1}
	cfg.Faults = []worker.Fault{rejected}
	workers, err := bench.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	normal, err := bench.settledIn(ctx, before)
	if err != nil {
		return nil, err
	}
	var alarmed float64
	var told time.Duration
	var dead int
	unwell := func() bool { return strings.Contains(workers[0].Last().Err, "blocks publishing: low on memory") }
	err = bench.journal.during(ledger.Fault{Kind: "memory alarm"}, func() error {
		began := time.Now()
		if err := bench.rig.Alarm(true); err != nil {
			return err
		}
		failure := poll(ctx, during, "the health tells of the alarm", func() (bool, error) { return unwell(), nil })
		told = time.Since(began)
		if failure == nil {
			alarmed, failure = bench.settledIn(ctx, during-told)
		}
		dead, _, err = bench.rig.Depth(bench.dead)
		return errors.Join(failure, err, bench.rig.Alarm(false))
	})
	if err != nil {
		return nil, err
	}
	lifted := time.Now()
	if err := poll(ctx, time.Minute, "the workers are well again", func() (bool, error) { return workers[0].Last().Err == "", nil }); err != nil {
		return nil, err
	}
	well := time.Since(lifted)
	again, err := bench.settledIn(ctx, before)
	if err != nil {
		return nil, err
	}
	if err := bench.awaitDrained(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	// One that is not confirmed in time is published again, and may be there already.
	twice, wrong, err := fates(bench.dir, rejected)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "%d ids dead-lettered that were not rejected, or rejected and not dead-lettered: %.300q", len(wrong), wrong)
	outcome.Must(alarmed >= 0.95*min(normal, again), "%.0f messages/s acknowledged during the alarm, %.0f before, %.0f after", alarmed, normal, again)
	outcome.Note("%d messages: %.0f/s acknowledged before the alarm, %.0f/s during its %.0f s, %.0f/s after; %d dead letters were there at its end, %d in the end, %d of them twice; the health "+
		"told of it after %.1f s, and was well %.1f s after", n, normal, alarmed, during.Seconds(), again, dead, outcome.Results[0].Dead, twice, told.Seconds(), well.Seconds())
	return outcome, nil
}

// acknowledgedLate is C6: handlers that take longer than the broker waits for an acknowledgement.
func acknowledgedLate(ctx context.Context, env *Env) (*Outcome, error) {
	rabbit, err := env.RabbitMQ()
	if err != nil {
		return nil, err
	}
	if err := rabbit.ConsumerTimeout(consumerTimeout, time.Second); err != nil {
		return nil, err
	}
	all := new(Outcome)
	for _, untold := range []bool{false, true} {
		err = all.try(ctx, env, "rabbitmq", func(ctx context.Context, env *Env, run *either) (*Outcome, error) {
			return acknowledgedLateOnce(ctx, env, run, untold)
		})
		if err != nil {
			break
		}
	}
	return all, errors.Join(err, rabbit.ConsumerTimeout(30*time.Minute, time.Minute))
}

// consumerTimeout is the broker's.
const consumerTimeout = 5 * time.Second

func acknowledgedLateOnce(ctx context.Context, env *Env, run *either, untold bool) (*Outcome, error) {
	const n, slow, attempts = 2000, 10, 5
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	cfg := run.config
	cfg.Delay, cfg.MaxAttempts, cfg.Backoff = 10*time.Millisecond, attempts, 10*time.Millisecond
	late := worker.Fault{Kind: worker.Slow, For: env.For(20*time.Second, 8*time.Second)}
	for i := range slow {
		late.IDs = append(late.IDs, load.ID(run.name, 0, 20+i*90))
	}
	source := *cfg.Rabbit
	cfg.Rabbit = &source
	if untold {
		late.Times = 2 // else they would never be done, as no handler can be made to end
	} else {
		// What the documentation says: all attempts fit into half of the broker's time-out.
		source.AckTimeout, cfg.Timeout, run.deadly = consumerTimeout, 400*time.Millisecond, true
	}
	cfg.Faults = []worker.Fault{late}
	deliveries := map[string]int{}
	run.watch(func(_ rig.Conn, event wire.Event) {
		if event.Kind == wire.Deliver && event.Queue == run.name {
			run.mu.Lock()
			deliveries[event.ID]++
			run.mu.Unlock()
		}
	})
	began := time.Now()
	fault := run.journal.begin(ledger.Fault{Kind: "slow handlers"})
	workers, err := run.startAll(ctx, 1, cfg)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(run.drained(ctx, 4*time.Minute), run.journal.end(fault)); err != nil {
		return nil, err
	}
	took := time.Since(began)
	sessions := run.total("sessions")
	outcome, err := run.finish(ctx, check.Rules{Duplicates: int(sessions) * run.bound})
	if err != nil {
		return nil, err
	}
	most := 0
	for _, id := range late.IDs {
		most = max(most, deliveries[id])
	}
	outcome.Must(float64(sessions-1) <= took.Seconds()/5+1, "%d sessions within %.0f s", sessions, took.Seconds())
	if untold {
		return outcome, run.judgeUntold(outcome, workers[0], sessions, most, took)
	}
	wrong, err := wronglyDead(run.dir, late)
	if err != nil {
		return nil, err
	}
	outcome.Must(len(wrong) == 0, "%d ids dead-lettered that were not slow, or slow and not dead-lettered: %.300q", len(wrong), wrong)
	outcome.Must(most <= attempts, "a slow message was delivered %d times", most)
	outcome.Note("AckTimeout told, time-out of handlers %v: %d messages, %d of them slow, dead-lettered after %d attempts and at most %d deliveries; %d sessions",
		cfg.Timeout, n, slow, attempts, most, sessions)
	return outcome, nil
}

// judgeUntold looks at a run in which the broker has closed channels.
func (e *either) judgeUntold(outcome *Outcome, p *rig.Process, sessions int64, most int, took time.Duration) error {
	log, err := e.log(p)
	if err != nil {
		return err
	}
	outcome.Must(sessions > 1, "the broker has closed no channel")
	for _, part := range []string{"PRECONDITION_FAILED", "delivery acknowledgement", "timed out", "consumer_timeout"} {
		outcome.Must(strings.Contains(log, part), "the log does not say %q", part)
	}
	outcome.Note("AckTimeout not told, handlers without a time-out: %d sessions within %.0f s, a slow message delivered at most %d times", sessions, took.Seconds(), most)
	return nil
}
