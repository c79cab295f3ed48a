package scenario

import (
	"context"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// sinkDown is E2: what lies behind the handlers (on Kafka) or the reporters (on RabbitMQ) is not there for a while.
func sinkDown(ctx context.Context, env *Env) (*Outcome, error) {
	return bothAtOnce(ctx, env, sinkDownOnce)
}

func sinkDownOnce(ctx context.Context, env *Env, run *either) (*Outcome, error) {
	const processes = 2
	n, length := env.N(60_000, 8_000), env.For(10*time.Minute, 15*time.Second)
	cfg := run.config
	cfg.Delay = 8 * time.Millisecond
	if run.kind == "rabbitmq" {
		cfg.Batch = &worker.Batch{Size: 50, Timeout: 50 * time.Millisecond, Concurrency: 2}
	}
	workers, err := run.startAll(ctx, processes, cfg)
	if err != nil {
		return nil, err
	}
	if err := run.calm(ctx); err != nil {
		return nil, err
	}
	if err := run.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	if err := run.afterShare(ctx, n, 0.3); err != nil {
		return nil, err
	}
	before := time.Now()
	normal := run.handled()
	if err := run.afterShare(ctx, n, 0.5); err != nil {
		return nil, err
	}
	pace := float64(run.handled()-normal) / time.Since(before).Seconds()
	var out *outage
	err = run.journal.during(ledger.Fault{Kind: "sink down", Clean: true}, func() (err error) {
		out, err = run.darken(ctx, workers, length)
		return err
	})
	if err != nil {
		return nil, err
	}
	up, held := time.Now(), run.handled()
	if err := poll(ctx, 2*time.Minute, "a message after the outage", func() (bool, error) { return run.handled() > held, nil }); err != nil {
		return nil, err
	}
	again := time.Now()
	if err := run.afterShare(ctx, n, 1); err != nil {
		return nil, err
	}
	after := float64(int64(n)-held) / time.Since(again).Seconds()
	if err := run.drained(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	outcome, err := run.finish(ctx, check.Rules{})
	if err != nil {
		return nil, err
	}
	out.judge(outcome, cfg.MaxUnsettled)
	outcome.Must(outcome.Total(check.Duplicates) == 0, "%d messages came twice", outcome.Total(check.Duplicates))
	outcome.Note("%d messages; %.0f messages/s before, %.0f afterwards, the first %.1f s after the sink was back", n, pace, after, again.Sub(up).Seconds())
	return outcome, nil
}

// calm returns when every member has an assignment, or a session, and no other has followed for a while.
func (e *either) calm(ctx context.Context) error {
	const quiet = 2 * time.Second
	last, since := int64(-1), time.Now()
	return poll(ctx, time.Minute, "the members settle", func() (bool, error) {
		if now := e.total("generations") + e.total("sessions"); now != last {
			last, since = now, time.Now()
		}
		return last > 0 && time.Since(since) > quiet, nil
	})
}

// outage is what workers did while their sink was down.
type outage struct {
	length                           time.Duration
	growth                           int64 // of one worker's memory
	fetched, moved, refused, highest int64
	dials, logged, cpu               float64
}

// darken takes the sink away from workers for a while.
func (b *bench) darken(ctx context.Context, workers []*rig.Process, length time.Duration) (*outage, error) {
	before := make([]int64, len(workers))
	for i, p := range workers {
		before[i] = p.Last().RSS
		if err := p.Send(worker.Command{Down: true}); err != nil {
			return nil, err
		}
	}
	if err := sleep(ctx, 2*time.Second); err != nil { // what was in hand comes to rest
		return nil, err
	}
	out := &outage{length: length, fetched: b.total("fetched"), moved: b.total("generations") + b.total("sessions"), refused: b.total("refused")}
	idle := b.idle(workers)
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
		for i, p := range workers {
			out.growth = max(out.growth, p.Last().RSS-before[i])
		}
	}
	out.dials, out.logged, out.cpu = idle.over()
	out.fetched, out.moved, out.refused = b.total("fetched")-out.fetched, b.total("generations")+b.total("sessions")-out.moved, b.total("refused")-out.refused
	for _, p := range workers {
		out.highest = max(out.highest, p.Last().Stats["highest_unsettled"])
		if err := p.Send(worker.Command{Up: true}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (o *outage) judge(outcome *Outcome, bound int) {
	const most = 32 << 20
	outcome.Must(o.growth <= most, "memory grew by %d MiB", o.growth>>20)
	outcome.Must(o.fetched == 0, "%d messages were fetched during the outage", o.fetched)
	outcome.Must(o.highest <= int64(bound), "%d messages were unsettled, over the bound of %d", o.highest, bound)
	outcome.Must(o.moved == 0, "%d rebalances or reconnects", o.moved)
	outcome.Note("%.0f s without a sink: memory of a worker grew by %.1f MiB, the sink was asked %d times; per worker %.1f connections/s, %.1f log lines/s, %.0f %% of a core",
		o.length.Seconds(), float64(o.growth)/(1<<20), o.refused, o.dials, o.logged, 100*o.cpu)
}
