package broadway

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// Reporter handles one batch. Nil means that every member succeeded; a
// *BatchError fails the members that it names; any other error, or a panic,
// fails all. Members are acknowledged only after it has returned.
//
// ctx ends when the batcher's ReportTimeout has passed or the drain's deadline
// has come.
type Reporter func(ctx context.Context, b *Batch) error

// reporter is one goroutine of a batcher that reports.
type reporter struct {
	b *batcher
	desk
	ends bool // it has a replacement
}

// desk is a new reporter's.
func (b *batcher) desk() *desk {
	r := &reporter{b: b}
	r.owner = r
	return &r.desk
}

// run reports batches until jobs is closed, or the reporter has a replacement. A
// Reporter that calls runtime.Goexit ends the goroutine: its last act is to hire
// the next one.
func (r *reporter) run(ctx context.Context) {
	exiting := true
	defer func() {
		if exiting && !r.ends {
			r.b.crew.succeed(ctx, &r.desk)
		}
	}()
	for !r.ends {
		o, ok := <-r.b.jobs
		if !ok {
			break
		}
		r.report(ctx, o)
	}
	exiting = false
}

// report has one batch reported and settles its members.
func (r *reporter) report(ctx context.Context, o *openBatch) {
	b := r.b
	if b.ordered() {
		o.trials = o.tried()
	}
	if ctx.Err() != nil {
		b.p.release(o.Messages...)
		b.finished(report{batch: o})
		return
	}
	begin := time.Now()
	o.run.batch, o.run.n = o, len(o.Messages)
	o.run.begin(o.Messages[0], nil, 0, b.p.clock.nanos(begin), o.trial)
	if b.p.recalls {
		o.run.due.Store(firstDue(o.Messages))
	}
	if b.cfg.RetryStuck {
		for _, m := range o.Messages {
			o.before = append(o.before, m.written())
		}
	}
	r.slot.Store(&o.run)
	err := ErrGoexit
	defer func() { r.finish(ctx, o, begin, err) }() // also when the goroutine ends
	err = b.guarded(ctx, o)
}

// finish settles the members of o, unless they are another's by now.
func (r *reporter) finish(ctx context.Context, o *openBatch, begin time.Time, err error) {
	was := o.run.end()
	r.slot.Store(nil)
	if !was.working() {
		r.ends = r.b.crew.back(&r.desk, &o.run)
	}
	if was.phase() != phaseDisowned {
		r.b.conclude(ctx, o, o.Messages, begin, err, !was.working())
	}
}

// conclude settles the members of a reported batch, and hands it back; stuck says
// that its reporter did not count as working any more.
func (b *batcher) conclude(ctx context.Context, o *openBatch, members []*Message, begin time.Time, err error, stuck bool) {
	s := b.settle(ctx, members, err)
	s.batch, s.stuck = o, stuck
	if o.trial && !stuck && s.outage == nil {
		b.circuit.tried(s.failed == 0)
	}
	if s.outage != nil {
		b.circuit.fail(nil, s.outage, o.trial && !stuck)
	}
	b.p.cfg.Observer.Reported(ReportEvent{
		Pipeline: b.p.cfg.Name, Batcher: b.cfg.Name, Trigger: o.Trigger,
		Messages: len(members), Bytes: o.Bytes, Failed: s.failed, Duration: time.Since(begin),
	})
	b.works(time.Since(begin))
	b.finished(s)
}

// stuck lets another batch be reported in place of the reporter's.
func (r *reporter) stuck(h *handling) {
	r.b.reporting.Add(-1)
	if h.trial {
		r.b.circuit.tried(false)
	}
	r.b.box.nudge()
}

// takeOver deals with the batch of a reporter that does not return. The reporter
// still has the members, and may write to them: what goes on are copies.
func (r *reporter) takeOver(ctx context.Context, h *handling, release, _ bool) {
	b, o := r.b, h.batch
	members := make([]*Message, len(o.Messages))
	for i, m := range o.Messages {
		var before written
		m.chunk.taint()
		if o.before != nil {
			before = o.before[i]
		}
		members[i] = m.copy(before)
	}
	if release {
		b.p.release(members...)
		return // no other batch of its keys comes after it
	}
	b.conclude(context.WithoutCancel(ctx), o, members, b.p.clock.time(h.began.Load()), b.late(), true)
}

func (b *batcher) late() error {
	return fmt.Errorf("%w after %v", ErrHandlerTimeout, b.cfg.ReportTimeout)
}

// guarded calls the reporter, and turns its panic into an error.
func (b *batcher) guarded(ctx context.Context, o *openBatch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	if b.cfg.ReportTimeout <= 0 {
		return b.cfg.Reporter(ctx, o.see())
	}
	late := b.late()
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.ReportTimeout, late)
	defer cancel()
	err = b.cfg.Reporter(ctx, o.see())
	if errors.Is(context.Cause(ctx), late) {
		return late
	}
	return err
}

// settle settles members after their reporter returned err. What it gives says how
// many failed, which are to be tried again, and which wait for the circuit.
func (b *batcher) settle(ctx context.Context, members []*Message, err error) (s report) {
	outcome, broken := outcomes(members, err)
	if broken != nil {
		b.p.log().Error("all of the batch has failed", "batcher", b.cfg.Name, "messages", len(members), "err", broken)
	}
	if outcome == nil {
		b.p.succeed(members)
		return s
	}
	succeeded := make([]*Message, 0, len(members))
	for i, m := range members {
		if outcome[i] == nil {
			succeeded = append(succeeded, m)
			continue
		}
		s.failed++
		switch r, course := b.p.decide(ctx, m, outcome[i], b); course {
		case courseHold:
			s.kept, s.outage = append(s.kept, r.message), outcome[i]
		case coursePark:
			if b.ordered() && slices.ContainsFunc(s.kept, func(before *Message) bool { return before.lane == m.lane }) {
				b.p.parker.vacate(r)
				s.kept = append(s.kept, r.message) // after the one of its key that waits
				continue
			}
			s.retries = append(s.retries, r)
		}
	}
	b.p.succeed(succeeded)
	return s
}

// asBatchError finds a *BatchError that err is or wraps, alone: joined with
// another error it says nothing of the members that it does not name.
func asBatchError(err error) (*BatchError, bool) {
	for err != nil {
		if e, ok := err.(*BatchError); ok { //nolint:errorlint // the chain is walked here
			return e, true
		}
		err = errors.Unwrap(err)
	}
	return nil, false
}

// outcomes is the error of each message, nil when all succeeded; broken says
// that a BatchError names a message twice, or one that is not in the batch: then
// it is the error of each.
func outcomes(messages []*Message, err error) (outcome []error, broken error) {
	if err == nil {
		return nil, nil
	}
	partial, named := asBatchError(err)
	if named && partial == nil {
		return nil, nil
	}
	if !named {
		return slices.Repeat([]error{err}, len(messages)), nil
	}
	outcome = make([]error, len(messages))
	place := make(map[*Message]int, len(messages))
	for i, m := range messages {
		place[m] = i
	}
	for _, f := range partial.failures {
		i, ok := place[f.message]
		switch {
		case !ok:
			broken = fmt.Errorf("%w: it names a message that is not in the batch", ErrBatchContract)
		case outcome[i] != nil:
			broken = fmt.Errorf("%w: it names message %s twice", ErrBatchContract, f.message.ID())
		}
		if broken != nil {
			return slices.Repeat([]error{broken}, len(messages)), broken
		}
		outcome[i] = f.err
	}
	return outcome, nil
}
