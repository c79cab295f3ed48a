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

// reportAll is a reporter stage's worker: it reports batches until jobs is
// closed. A reporter that calls runtime.Goexit ends the goroutine: its last act
// is to start the next one.
func (b *batcher) reportAll(ctx context.Context, start func(func())) {
	exiting := true
	defer func() {
		if exiting {
			start(func() { b.reportAll(ctx, start) })
		}
	}()
	for o := range b.jobs {
		b.report(ctx, o)
	}
	exiting = false
}

// report has one batch reported and settles its members.
func (b *batcher) report(ctx context.Context, o *openBatch) {
	if ctx.Err() != nil {
		b.p.release(o.Messages...)
		b.finished(report{batch: o})
		return
	}
	begin := time.Now()
	returned := false
	finish := func(err error) {
		failed, retries := b.settle(ctx, o, err)
		b.p.cfg.Observer.Reported(ReportEvent{
			Pipeline: b.p.cfg.Name, Batcher: b.cfg.Name, Trigger: o.Trigger,
			Messages: len(o.Messages), Bytes: o.Bytes, Failed: failed, Duration: time.Since(begin),
		})
		b.works(time.Since(begin))
		b.finished(report{batch: o, retries: retries})
	}
	defer func() {
		if !returned {
			finish(ErrGoexit)
		}
	}()
	err := b.guarded(ctx, o)
	returned = true
	finish(err)
}

// guarded calls the reporter, and turns its panic into an error.
func (b *batcher) guarded(ctx context.Context, o *openBatch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	if b.cfg.ReportTimeout <= 0 {
		return b.cfg.Reporter(ctx, b.copy(o))
	}
	late := fmt.Errorf("%w after %v", ErrHandlerTimeout, b.cfg.ReportTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.ReportTimeout, late)
	defer cancel()
	err = b.cfg.Reporter(ctx, b.copy(o))
	if errors.Is(context.Cause(ctx), late) {
		return late
	}
	return err
}

// copy is what the reporter sees: it may reorder or cut its slice.
func (b *batcher) copy(o *openBatch) *Batch {
	c := o.Batch
	c.Messages = slices.Clone(o.Messages)
	return &c
}

// settle settles the members of o after its reporter returned err, and returns
// how many failed and which are to be tried again.
func (b *batcher) settle(ctx context.Context, o *openBatch, err error) (failed int, retries []retry) {
	outcome, broken := outcomes(o.Messages, err)
	if broken != nil {
		b.p.log().Error("nothing of the batch is settled", "batcher", b.cfg.Name, "messages", len(o.Messages), "err", broken)
		b.p.release(o.Messages...)
		return len(o.Messages), nil
	}
	succeeded := make([]*Message, 0, len(o.Messages))
	for i, m := range o.Messages {
		if outcome == nil || outcome[i] == nil {
			succeeded = append(succeeded, m)
			continue
		}
		failed++
		if r, again := b.p.decide(ctx, m, outcome[i], b); again {
			retries = append(retries, r)
		}
	}
	b.p.succeed(succeeded)
	return failed, retries
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
// that a BatchError names a message twice, or one that is not in the batch.
func outcomes(messages []*Message, err error) (outcome []error, broken error) {
	if err == nil {
		return nil, nil
	}
	partial, named := asBatchError(err)
	if named && partial == nil {
		return nil, nil
	}
	outcome = make([]error, len(messages))
	if !named {
		for i := range outcome {
			outcome[i] = err
		}
		return outcome, nil
	}
	place := make(map[*Message]int, len(messages))
	for i, m := range messages {
		place[m] = i
	}
	for _, f := range partial.failures {
		i, ok := place[f.message]
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: it names a message that is not in the batch", ErrBatchContract)
		case outcome[i] != nil:
			return nil, fmt.Errorf("%w: it names message %s twice", ErrBatchContract, f.message.ID())
		}
		outcome[i] = f.err
	}
	return outcome, nil
}
