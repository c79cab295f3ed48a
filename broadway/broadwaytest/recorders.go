package broadwaytest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Result is how a message left a pipeline.
type Result uint8

const (
	// Succeeded was acknowledged.
	Succeeded Result = iota
	// Failed was settled by an action other than dead-lettering.
	Failed
	// DeadLettered was published to the dead letters, and settled.
	DeadLettered
	// Released was given back unsettled.
	Released
)

// String is the result's name, such as "dead-lettered".
func (r Result) String() string {
	names := [...]string{"succeeded", "failed", "dead-lettered", "released"}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// Settled is a copy of what a message was when it was settled: the message
// itself is not valid any more.
type Settled struct {
	Result    Result
	Payload   string
	Value     any
	Metadata  any
	ID        string
	Seq       int64
	Batcher   string
	BatchKey  string
	BatchMode broadway.BatchMode
	Attempt   int
	// Err and Action are why the message failed and what the policy decided.
	Err    error
	Action broadway.Action
}

func settledCopy(m *broadway.Message, r Result) Settled {
	return Settled{
		Result: r, Payload: string(m.Payload), Value: m.Value, Metadata: m.Metadata,
		ID: m.ID(), Seq: m.Seq(), Batcher: m.Batcher, BatchKey: m.BatchKey, BatchMode: m.BatchMode,
		Attempt: m.Attempt, Err: m.Err(), Action: m.Action(),
	}
}

// AckCall is one call of an acknowledger.
type AckCall struct {
	Ref *broadway.AckRef
	// OK and Failed are the lists of an Ack, Released that of a Release.
	OK, Failed, Released []Settled
}

// String is the call with its payloads, such as "ack(a b; c)": the failed ones
// stand behind the semicolon. A release is "release(a)".
func (c AckCall) String() string {
	if len(c.Released) > 0 {
		return "release(" + joined(c.Released) + ")"
	}
	return strings.TrimSuffix("ack("+joined(c.OK)+"; "+joined(c.Failed), "; ") + ")"
}

func joined(list []Settled) string {
	var texts []string
	for _, s := range list {
		texts = append(texts, s.Payload)
	}
	return strings.Join(texts, " ")
}

// AckRecorder is a [broadway.Acknowledger] and [broadway.Releaser] that
// remembers its calls. The zero value is ready. It is safe for concurrent use.
type AckRecorder struct {
	// Next is asked after a call was recorded. Default: nobody.
	Next broadway.Acknowledger

	calls  history[AckCall]
	faults faults

	mu       sync.Mutex // protects following fields
	running  map[*broadway.AckRef]int
	overlaps int
}

// Ack records the call.
func (r *AckRecorder) Ack(ctx context.Context, ref *broadway.AckRef, ok, failed []*broadway.Message) error {
	defer r.enter(ref)()
	if err := r.faults.pass(ctx); err != nil {
		return err
	}
	call := AckCall{Ref: ref}
	for _, m := range ok {
		call.OK = append(call.OK, settledCopy(m, Succeeded))
	}
	for _, m := range failed {
		result := Failed
		if m.Action() == broadway.ActionDeadLetter {
			result = DeadLettered
		}
		call.Failed = append(call.Failed, settledCopy(m, result))
	}
	r.calls.add(call)
	if r.Next != nil {
		return r.Next.Ack(ctx, ref, ok, failed)
	}
	return nil
}

// Release records the call.
func (r *AckRecorder) Release(ctx context.Context, ref *broadway.AckRef, messages []*broadway.Message) error {
	defer r.enter(ref)()
	call := AckCall{Ref: ref}
	for _, m := range messages {
		call.Released = append(call.Released, settledCopy(m, Released))
	}
	r.calls.add(call)
	if next, ok := r.Next.(broadway.Releaser); ok {
		return next.Release(ctx, ref, messages)
	}
	return nil
}

// enter counts calls that overlap, which they must not for one reference.
func (r *AckRecorder) enter(ref *broadway.AckRef) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil {
		r.running = make(map[*broadway.AckRef]int)
	}
	if r.running[ref] > 0 {
		r.overlaps++
	}
	r.running[ref]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.running[ref]--; r.running[ref] == 0 {
			delete(r.running, ref)
		}
	}
}

// Fail makes the next calls of Ack return errs, one each, without effect; nil
// lets a call pass.
func (r *AckRecorder) Fail(errs ...error) { r.faults.fail(errs) }

// Block makes calls of Ack wait until the returned function is called.
func (r *AckRecorder) Block() (unblock func()) { return r.faults.block() }

// Overlaps is how often a call for a reference began before another one for it
// had returned. A pipeline keeps it at 0.
func (r *AckRecorder) Overlaps() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.overlaps
}

// Calls are the calls so far.
func (r *AckRecorder) Calls() []AckCall { return r.calls.all() }

// Settled are the messages of all calls so far.
func (r *AckRecorder) Settled() []Settled { return settledIn(r.calls.all()) }

// Wait returns once n messages have been settled or released, or with the cause
// of ctx.
func (r *AckRecorder) Wait(ctx context.Context, n int) error {
	return r.calls.wait(ctx, func(calls []AckCall) bool { return len(settledIn(calls)) >= n })
}

func settledIn(calls []AckCall) []Settled {
	var all []Settled
	for _, c := range calls {
		all = append(all, c.OK...)
		all = append(all, c.Failed...)
		all = append(all, c.Released...)
	}
	return all
}

// ReportedBatch is a copy of what a reporter was given.
type ReportedBatch struct {
	Payloads []string
	Values   []any
	Batcher  string
	Key      string
	Trigger  broadway.Trigger
	Bytes    int64
	// Attempts are those of the members.
	Attempts []int
}

// String is the batch with its payloads, such as "default[a b]".
func (b ReportedBatch) String() string {
	return fmt.Sprintf("%s[%s]", b.Batcher, strings.Join(b.Payloads, " "))
}

// ReportRecorder remembers batches: its Report is a [broadway.Reporter]. The
// zero value is ready. It is safe for concurrent use.
type ReportRecorder struct {
	// Next reports each batch after it was recorded. Default: nobody, and every
	// batch succeeds.
	Next broadway.Reporter

	batches history[ReportedBatch]
	faults  faults
}

// Report records the batch.
func (r *ReportRecorder) Report(ctx context.Context, b *broadway.Batch) error {
	copied := ReportedBatch{Batcher: b.Batcher, Key: b.Key, Trigger: b.Trigger, Bytes: b.Bytes}
	for _, m := range b.Messages {
		copied.Payloads = append(copied.Payloads, string(m.Payload))
		copied.Values = append(copied.Values, m.Value)
		copied.Attempts = append(copied.Attempts, m.Attempt)
	}
	r.batches.add(copied)
	if err := r.faults.pass(ctx); err != nil {
		return err
	}
	if r.Next != nil {
		return r.Next(ctx, b)
	}
	return nil
}

// Fail makes the next reports return errs, one each; nil lets a report pass.
func (r *ReportRecorder) Fail(errs ...error) { r.faults.fail(errs) }

// Block makes reports wait until the returned function is called.
func (r *ReportRecorder) Block() (unblock func()) { return r.faults.block() }

// Batches are the batches so far, failed ones included.
func (r *ReportRecorder) Batches() []ReportedBatch { return r.batches.all() }

// Wait returns once n batches have come, or with the cause of ctx.
func (r *ReportRecorder) Wait(ctx context.Context, n int) error {
	return r.batches.wait(ctx, func(b []ReportedBatch) bool { return len(b) >= n })
}

// DeadLetterRecorder is a [broadway.DeadLetterer] that remembers messages. The
// zero value is ready. It is safe for concurrent use.
type DeadLetterRecorder struct {
	letters history[Settled]
	faults  faults
}

// DeadLetter records messages and confirms them all.
func (r *DeadLetterRecorder) DeadLetter(ctx context.Context, messages []*broadway.Message) error {
	if err := r.faults.pass(ctx); err != nil {
		return err
	}
	for _, m := range messages {
		r.letters.add(settledCopy(m, DeadLettered))
	}
	return nil
}

// Fail makes the next calls return errs, one each, and confirm nothing; nil lets
// a call pass.
func (r *DeadLetterRecorder) Fail(errs ...error) { r.faults.fail(errs) }

// Block makes calls wait until the returned function is called.
func (r *DeadLetterRecorder) Block() (unblock func()) { return r.faults.block() }

// Letters are the messages so far.
func (r *DeadLetterRecorder) Letters() []Settled { return r.letters.all() }

// Wait returns once n messages have come, or with the cause of ctx.
func (r *DeadLetterRecorder) Wait(ctx context.Context, n int) error {
	return r.letters.wait(ctx, func(s []Settled) bool { return len(s) >= n })
}

// Retry is what a [broadway.RetryObserver] was told.
type Retry struct {
	Pipeline string
	Stage    string
	Payload  string
	Attempt  int
	Wait     time.Duration
	Err      error
}

// ObserverRecorder is a [broadway.Observer], and a [broadway.RetryObserver],
// [broadway.StuckObserver] and [broadway.CircuitObserver], that remembers what it was
// told. The zero value is ready. It is safe for
// concurrent use.
type ObserverRecorder struct {
	fetched  history[broadway.FetchEvent]
	handled  history[broadway.HandleEvent]
	reported history[broadway.ReportEvent]
	settled  history[broadway.SettleEvent]
	retries  history[Retry]
	stuck    history[broadway.StuckEvent]
	circuits history[broadway.CircuitEvent]
}

// Fetched records e.
func (r *ObserverRecorder) Fetched(e broadway.FetchEvent) { r.fetched.add(e) }

// Handled records e.
func (r *ObserverRecorder) Handled(e broadway.HandleEvent) { r.handled.add(e) }

// Reported records e.
func (r *ObserverRecorder) Reported(e broadway.ReportEvent) { r.reported.add(e) }

// Settled records e.
func (r *ObserverRecorder) Settled(e broadway.SettleEvent) { r.settled.add(e) }

// Retrying records a retry.
func (r *ObserverRecorder) Retrying(pipeline, stage string, m *broadway.Message, wait time.Duration, err error) {
	r.retries.add(Retry{pipeline, stage, string(m.Payload), m.Attempt, wait, err})
}

// Stuck records e.
func (r *ObserverRecorder) Stuck(e broadway.StuckEvent) { r.stuck.add(e) }

// Circuit records e.
func (r *ObserverRecorder) Circuit(e broadway.CircuitEvent) { r.circuits.add(e) }

// Stucks are the handlers so far that did not return, and that did after all.
func (r *ObserverRecorder) Stucks() []broadway.StuckEvent { return r.stuck.all() }

// Circuits are the changes of circuits so far.
func (r *ObserverRecorder) Circuits() []broadway.CircuitEvent { return r.circuits.all() }

// Fetches are the fetches so far.
func (r *ObserverRecorder) Fetches() []broadway.FetchEvent { return r.fetched.all() }

// Handles are the visits of workers so far.
func (r *ObserverRecorder) Handles() []broadway.HandleEvent { return r.handled.all() }

// Reports are the reported batches so far.
func (r *ObserverRecorder) Reports() []broadway.ReportEvent { return r.reported.all() }

// Settles are the settled groups so far.
func (r *ObserverRecorder) Settles() []broadway.SettleEvent { return r.settled.all() }

// Retries are the retries so far.
func (r *ObserverRecorder) Retries() []Retry { return r.retries.all() }

// Total is the sum of all settled groups so far. Its Err is nil.
func (r *ObserverRecorder) Total() broadway.SettleEvent { return total(r.settled.all()) }

// Wait returns once n messages have left the pipeline, or with the cause of ctx.
func (r *ObserverRecorder) Wait(ctx context.Context, n int) error {
	return r.settled.wait(ctx, func(events []broadway.SettleEvent) bool {
		t := total(events)
		return t.Succeeded+t.Failed+t.DeadLettered+t.Released+t.Stale >= n
	})
}

func total(events []broadway.SettleEvent) broadway.SettleEvent {
	var sum broadway.SettleEvent
	for _, e := range events {
		sum.Pipeline = e.Pipeline
		sum.Succeeded += e.Succeeded
		sum.Failed += e.Failed
		sum.DeadLettered += e.DeadLettered
		sum.Released += e.Released
		sum.Stale += e.Stale
	}
	return sum
}
