package broadway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Pipeline is a Config that was found valid, and can run once.
type Pipeline struct {
	cfg         Config
	clock       clock
	sources     []*source
	ledger      *ledger
	pool        *pool
	batchers    []*batcher
	byName      map[string]*batcher
	unnamed     *batcher // of messages that name none; nil when they must
	keyed       bool     // some batcher has a KeyBy
	recalls     bool     // some source has an AckTimeout
	parker      *parker
	deadLetters *deadLetters // nil without
	retrying    RetryObserver
	count       counters
	recalling   atomic.Int64 // messages that were recalled and are not settled
	recallTold  int64        // the watchdog's: how many were logged

	ran      atomic.Bool
	draining atomic.Bool
	paused   atomic.Bool
	aborted  atomic.Bool
	cut      atomic.Bool // the handlers' part of the drain is over
	unfirst  atomic.Int32
	over     chan struct{} // closed when Run returns
	turn     chan struct{} // held by Pause and Resume

	mu       sync.Mutex // protects following fields
	cause    error      // why the pipeline stopped, nil when it was asked to
	disowned []Handling // that did not return in time for the drain
	halt     []context.CancelCauseFunc
}

// New checks the whole of cfg and reports all mistakes at once: an error joined
// of *FieldError. It dials nothing and starts no goroutine.
func New(cfg Config) (*Pipeline, error) {
	cfg = cfg.withDefaults()
	wrong := cfg.check()
	p := &Pipeline{clock: clock{time.Now()}, byName: map[string]*batcher{}, over: make(chan struct{}), turn: make(chan struct{}, 1)}
	for _, producer := range cfg.Producers {
		if producer != nil {
			p.sources = append(p.sources, &source{
				p: p, producer: producer, filled: len(cfg.Producers) == 1, wake: make(chan struct{}, 1),
			})
		}
	}
	if len(p.sources) > 0 {
		cfg.bound(p.sources, &wrong)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	cfg.order(p.sources)
	if cfg.Failure.Action == ActionNone {
		cfg.Failure.Action = ActionDrop
	}
	cfg.Logger = cfg.Logger.With("pipeline", cfg.Name)
	p.cfg = cfg
	p.assemble()
	return p, nil
}

// assemble makes the stages.
func (p *Pipeline) assemble() {
	p.retrying, _ = p.cfg.Observer.(RetryObserver)
	p.ledger = newLedger(int64(p.cfg.MaxUnsettled), p.cfg.MaxUnsettledBytes, p.sources)
	p.ledger.clock = p.clock
	for _, s := range p.sources {
		s.settler = newSettler(p, s)
		p.recalls = p.recalls || s.traits.AckTimeout > 0
	}
	p.parker = newParker(p)
	if p.cfg.Failure.Action == ActionDeadLetter {
		p.deadLetters = newDeadLetters(p)
	}
	for _, cfg := range p.cfg.Batchers {
		b := newBatcher(p, cfg)
		b.index = len(p.batchers)
		p.keyed = p.keyed || cfg.KeyBy != nil
		p.batchers = append(p.batchers, b)
		p.byName[cfg.Name] = b
	}
	if len(p.batchers) == 1 {
		p.unnamed = p.batchers[0]
	} else {
		p.unnamed = p.byName[DefaultBatcher]
	}
	p.pool = newPool(p)
}

// Run connects, runs the pipeline, and returns when it has drained: after ctx
// has ended, every source is done, or a failure stopped it. Nil is a clean
// drain. Cancelling ctx stops fetching only; what was fetched is finished
// within Config.DrainTimeout, and what is not is named by an error that wraps
// ErrDrainTimeout.
func (p *Pipeline) Run(ctx context.Context) error {
	if !p.ran.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer close(p.over)
	fetching, stopFetching := context.WithCancelCause(ctx)
	working, stopWorking := context.WithCancelCause(context.WithoutCancel(ctx))
	settling, stopSettling := context.WithCancelCause(context.WithoutCancel(ctx))
	p.mu.Lock()
	p.halt = []context.CancelCauseFunc{stopFetching, stopWorking, stopSettling}
	if p.cause != nil { // stopped before it ran
		stopFetching(p.cause)
	}
	p.mu.Unlock()

	lettering, stopLettering := context.WithCancelCause(settling)
	d := &drain{p: p, stopWorking: stopWorking, stopLettering: stopLettering, stopSettling: stopSettling, stop: make(chan struct{})}
	defer d.startClock(fetching)()
	p.unfirst.Store(int32(len(p.sources)))
	d.start(working, lettering, settling)
	for p.fetch(fetching, settling) {
	}
	err := d.run(settling)
	stopFetching(nil)
	stopWorking(nil)
	stopLettering(nil)
	stopSettling(nil)
	return err
}

// fetch fetches until every source is done or ctx ends. True says that messages
// were given back meanwhile, so that a source that was done may have more.
// It does not wait beyond settling for a Fetch that ignores its context.
func (p *Pipeline) fetch(ctx, settling context.Context) bool {
	before := p.count.back()
	p.draining.Store(false)
	p.ledger.started(p.sources)
	var fetchers sync.WaitGroup
	for _, s := range p.sources {
		fetchers.Go(func() { s.run(ctx) })
	}
	waitFor(settling, &fetchers)
	p.draining.Store(true)
	p.nudge() // batches close when a worker rests: what is queued may join them
	return p.ledger.empty(ctx) == nil && ctx.Err() == nil && p.count.back() > before
}

// Abort stops at once and settles nothing more. Run returns ErrAborted.
func (p *Pipeline) Abort() {
	p.aborted.Store(true)
	p.stop(ErrAborted)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, halt := range p.halt {
		halt(ErrAborted)
	}
}

// stop makes the pipeline drain because of err, which Run returns. The first
// reason stays, but for an abort.
func (p *Pipeline) stop(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause == nil || errors.Is(err, ErrAborted) {
		p.cause = err
	}
	if len(p.halt) > 0 {
		p.halt[0](err)
	}
}

// Pause stops fetching. Queued work is finished, open batches are flushed,
// connections and group memberships stay. It returns when no Fetch runs, or
// with the cause of ctx.
func (p *Pipeline) Pause(ctx context.Context) error {
	release, err := p.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	p.paused.Store(true)
	for _, s := range p.sources {
		if err := s.halt(ctx); err != nil {
			return err
		}
		if pauser, ok := s.producer.(Pauser); ok {
			if err := pauser.Pause(ctx); err != nil {
				return err
			}
		}
	}
	p.flush()
	return nil
}

// exclusive lets one Pause or Resume work at a time.
func (p *Pipeline) exclusive(ctx context.Context) (release func(), err error) {
	select {
	case p.turn <- struct{}{}:
		return func() { <-p.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Resume fetches again.
func (p *Pipeline) Resume(ctx context.Context) error {
	release, err := p.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	for _, s := range p.sources {
		if pauser, ok := s.producer.(Pauser); ok {
			if err := pauser.Resume(ctx); err != nil {
				return err
			}
		}
	}
	p.paused.Store(false)
	p.ledger.look()
	return nil
}

// Topology lists the stages in the order in which messages pass them.
func (p *Pipeline) Topology() []Stage {
	var out []Stage
	for _, s := range p.sources {
		out = append(out, Stage{Kind: "producer", Name: s.name, Concurrency: 1})
	}
	out = append(out, Stage{Kind: "processor", Name: "processor", Concurrency: p.cfg.Processor.Concurrency})
	for _, b := range p.batchers {
		out = append(out,
			Stage{Kind: "batcher", Name: b.cfg.Name, Concurrency: 1},
			Stage{Kind: "reporter", Name: b.cfg.Name, Concurrency: b.cfg.Concurrency})
	}
	return out
}

func (p *Pipeline) log() *slog.Logger { return p.cfg.Logger }

// handBackWait is how long a message waits that there is no room for, before it is
// given back.
const handBackWait = 250 * time.Millisecond

// forward hands a processed message on: to its batcher, or to be settled.
func (w *worker) forward(m *Message) {
	p := w.pool.p
	if len(p.batchers) == 0 {
		p.settle(m, stateSucceeded)
		return
	}
	b := p.route(m)
	if b == nil {
		m.err = fmt.Errorf("%w %q", ErrUnknownBatcher, m.Batcher)
		p.giveUp(m)
		return
	}
	if !b.hold(m) {
		p.handBack(m)
		return
	}
	m.stage, m.retry, m.Attempt = b.number(), false, int(m.earlier)+1
	ref, by := m.ref, b.neededBy(m)
	b.told(w.runs[b.index].put(&b.box, m, w.from, w.place), ref, by)
}

// route is the batcher that m goes to, nil when there is none of that name.
func (p *Pipeline) route(m *Message) *batcher {
	if m.Batcher == "" {
		return p.unnamed
	}
	return p.byName[m.Batcher]
}

// handBack releases m, after a pause while not too many pause: a source that
// delivers it again at once would make a busy loop of it, but what pauses keeps
// its credit from others.
func (p *Pipeline) handBack(m *Message) {
	if !p.parker.returning.reserve() {
		p.release(m)
		return
	}
	p.parker.park(retry{message: m, wait: handBackWait, release: true})
}

// setKey sets the batch key of a message whose handler set none.
func (p *Pipeline) setKey(m *Message) {
	if !p.keyed || m.BatchKey != "" {
		return
	}
	if b := p.route(m); b != nil && b.cfg.KeyBy != nil {
		m.BatchKey = b.cfg.KeyBy(m)
	}
}

// lookAtBatchers finds batchers that are blocked since some time, so that the
// sources are asked again: what they bring for others flows. One whose share others
// have made smaller gets nothing more that would wake it, to close what it has open.
func (p *Pipeline) lookAtBatchers(now time.Time) {
	for _, b := range p.batchers {
		if !b.overfull() {
			continue
		}
		if b.checkBlocked(now) {
			p.ledger.look()
		}
		b.box.nudge()
	}
}

// resume sends a parked message back to its stage.
func (p *Pipeline) resume(r retry) {
	switch m := r.message; {
	case r.release:
		p.release(m)
	case m.stage != 0:
		m.batcher().put(m)
	case m.giveBack:
		p.pool.giveBack(m)
	default:
		p.pool.dispatch.requeue(m)
	}
}

// want is what a source is asked for: nothing while the pipeline is paused, or a
// batcher that works has more than its share.
func (p *Pipeline) want() (most, least int) {
	if p.paused.Load() {
		return 0, 0
	}
	for _, b := range p.batchers {
		if b.overfull() && !b.blocks() {
			return 0, 0 // it is slow, and works: more would only wait for it
		}
	}
	return p.pool.want()
}

// quiescing says that nothing more is fetched, so that no batch grows.
func (p *Pipeline) quiescing() bool {
	return p.draining.Load() || p.paused.Load() || p.cut.Load()
}

// starved says that some source, or some reference, gets nothing more until
// something settles.
func (p *Pipeline) starved() bool { return p.count.full.Load() > 0 || p.ledger.starved() }

// mayRelieve says whether b has the fullest open batch of all batchers whose
// reporters are idle; if not, it makes the one look that has.
func (p *Pipeline) mayRelieve(b *batcher) bool {
	mine := b.fullest.Load()
	before := true
	for _, other := range p.batchers {
		if other == b {
			before = false
			continue
		}
		if n := other.fullest.Load(); n > mine || n == mine && before {
			other.box.nudge()
			return false
		}
	}
	return true
}

// workerRests is called by a worker that found nothing to do.
func (p *Pipeline) workerRests() {
	p.ledger.look()
	if p.quiescing() || p.starved() {
		p.nudge()
	}
}

// flush makes every batcher close its open batches, though what is queued could join
// them.
func (p *Pipeline) flush() {
	for _, b := range p.batchers {
		b.flush.Store(true)
		b.box.nudge()
	}
}

// nudge makes every batcher look at its open batches: a source has to wait for
// credit or has ended, a worker rests, a reference drains.
func (p *Pipeline) nudge() {
	for _, b := range p.batchers {
		b.box.nudge()
	}
}

// refDrains is called when a reference drains: its messages that nobody holds
// are released, open batches with members of it are closed.
func (p *Pipeline) refDrains(ref *AckRef) {
	p.sweep(ref)
	p.parker.hurry(func(r retry) bool { return r.message.ref == ref })
	p.pool.circuit.hurry(func(m *Message) bool { return m.ref == ref })
	if p.deadLetters != nil {
		p.deadLetters.nudge()
	}
	for _, b := range p.batchers {
		b.scan.Store(true)
	}
	p.nudge()
}

// backOff waits before the next attempt, and says whether there is one.
func (p *Pipeline) backOff(ctx context.Context, failures int, what, name string, err error) bool {
	wait := p.cfg.ReconnectBackoff.Delay(failures, rand.Float64())
	p.log().Warn(what, "producer", name, "failures", failures, "again_in", wait, "err", err)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
