package broadway

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Action is what becomes of a message that failed for good.
type Action uint8

const (
	// ActionNone is no choice; sources with a broker refuse it.
	ActionNone Action = iota
	// ActionDeadLetter publishes the message to FailurePolicy.DeadLetter and
	// settles it after the publishing is confirmed.
	ActionDeadLetter
	// ActionDrop settles the message as done, counted and logged.
	ActionDrop
	// ActionReject rejects the message without requeueing: the broker's own
	// dead-lettering, if any, applies.
	ActionReject
	// ActionRequeue gives the message back to be delivered again.
	ActionRequeue
	// ActionRequeueOnce requeues a message that was never delivered before and
	// rejects it otherwise.
	ActionRequeueOnce
	// ActionStopPartition leaves the message unsettled and stops its partition.
	ActionStopPartition
	// ActionStopPipeline leaves the message unsettled and stops the pipeline;
	// Run returns its error.
	ActionStopPipeline
)

// String is the action's name in pipeline files, such as "dead_letter".
func (a Action) String() string {
	names := [...]string{"none", "dead_letter", "drop", "reject", "requeue", "requeue_once", "stop_partition", "stop_pipeline"}
	if int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// Actions is a set of actions.
type Actions uint16

// ActionSet makes a set.
func ActionSet(actions ...Action) Actions {
	var s Actions
	for _, a := range actions {
		s |= 1 << a
	}
	return s
}

// String names the actions of the set, with commas.
func (s Actions) String() string {
	var names []string
	for a := ActionNone + 1; a <= ActionStopPipeline; a++ {
		if s.Has(a) {
			names = append(names, a.String())
		}
	}
	return strings.Join(names, ", ")
}

// Has says whether a is in the set.
func (s Actions) Has(a Action) bool { return s&(1<<a) != 0 }

// Backoff is the wait between attempts: Initial * Factor^(attempt-1), at most
// Max, spread by ±Jitter.
type Backoff struct {
	// Initial is the wait before the second attempt. Default 100 ms.
	Initial time.Duration
	// Max bounds each wait. Default 10 s.
	Max time.Duration
	// Factor multiplies from attempt to attempt, at least 1. Default 2.
	Factor float64
	// Jitter is the part by which a wait is spread to both sides, 0 to 1.
	// Default 0.2; -1 means none.
	Jitter float64
}

// Delay is the wait after the given attempt (from 1), spread by random, which
// lies in [0, 1).
func (b Backoff) Delay(attempt int, random float64) time.Duration {
	d := float64(b.Initial) * math.Pow(b.Factor, float64(attempt-1))
	d = min(d, float64(b.Max))
	if b.Jitter > 0 {
		d *= 1 + b.Jitter*(2*random-1)
	}
	return time.Duration(min(d, float64(b.Max)))
}

// total is the longest that all waits of a policy with n attempts can take.
func (b Backoff) total(n int) time.Duration {
	var sum time.Duration
	for attempt := 1; attempt < n; attempt++ {
		sum += b.Delay(attempt, 1)
	}
	return sum
}

// DeadLetterer publishes failed messages elsewhere and returns once that is
// confirmed. See acknowledgers.DeadLetters. One that is a [Validator] is asked by
// New, and what it reports stands under Failure.DeadLetter.
type DeadLetterer interface {
	// DeadLetter returns nil when every message is confirmed, a *BatchError
	// naming those that are not, or another error when none is. What is not
	// confirmed stays unsettled and is tried again with backoff. Up to two calls
	// run at the same time: one for what is tried again.
	DeadLetter(ctx context.Context, messages []*Message) error
}

// FailurePolicy says what happens when a handler or a reporter fails a message.
type FailurePolicy struct {
	// MaxAttempts is how often one stage handles a message, the first time
	// included. Default 3. Reject errors are not retried, and handlings that found
	// something unavailable do not count. A message that is delivered again, as after
	// a stop or a lost connection, begins with its first.
	MaxAttempts int
	// Backoff is the wait between attempts, which occupies no worker; and between
	// the tries of a circuit that is open. Once a quarter of MaxUnsettled waits for
	// another attempt, the partitions that these come from bring no more, or with
	// sources that have none all of the source.
	Backoff Backoff
	// Unavailable says which errors mean that something downstream is not there, so
	// that they open the stage's circuit: see the function [Unavailable], which
	// marks single errors. It is asked about errors without advice, from several
	// goroutines, panics and time-outs included. Default none.
	Unavailable func(error) bool
	// Action is taken after the last attempt. Sources with a broker require a
	// choice; for others the default is ActionDrop. Each is logged, but for dead
	// letters, which say why themselves: see Observer and Stats.DeadLettered.
	Action Action
	// DeadLetter is required with ActionDeadLetter.
	DeadLetter DeadLetterer
}

// retry is a message that waits for its next attempt, or to be given back.
type retry struct {
	message *Message
	wait    time.Duration
	due     time.Time
	release bool
	goOn    func() // ends a stop, if it has no place: see reserve
	then    func() // instead of a message
}

// course is what decide leaves to its caller.
type course uint8

const (
	courseNone course = iota // m was dealt with
	coursePark               // the retry is to be parked, for which a place is reserved
	courseHold               // the retry waits until the stage's circuit closes
)

// decide says what becomes of m, which err failed at a stage (nil is the pool).
func (p *Pipeline) decide(ctx context.Context, m *Message, err error, at *batcher) (retry, course) {
	if ctx.Err() != nil {
		p.release(m) // cut off by the drain's deadline: not the message's fault
		return retry{}, courseNone
	}
	m.err = err
	kind, wait := classify(err)
	if p.unavailable(err, kind) {
		next := m.again(m.Attempt, at)
		m.drop()
		return retry{message: next}, courseHold
	}
	if kind == adviseReject || m.Attempt >= p.cfg.Failure.MaxAttempts {
		p.giveUp(m)
		return retry{}, courseNone
	}
	goOn := p.parker.reserve(m)
	if kind != adviseRetryAfter {
		wait = p.cfg.Failure.Backoff.Delay(m.Attempt, rand.Float64())
	}
	p.count.retried.Add(1)
	if p.retrying != nil {
		p.retrying.Retrying(p.cfg.Name, at.stageName(), m, wait, err)
	}
	next := m.again(m.Attempt+1, at)
	m.drop() // before apart, after which nothing keeps m's memory from being used again
	return retry{message: p.apart(next), wait: wait, goOn: goOn}, coursePark
}

// number is what messages of a stage have as theirs, 0 being the pool's.
func (b *batcher) number() uint16 {
	if b == nil {
		return 0
	}
	return uint16(b.index + 1)
}

// stageName is the name of a stage for people: a batcher's, or the pool's.
func (b *batcher) stageName() string {
	if b == nil {
		return "processor"
	}
	return b.cfg.Name
}

// fail deals with a message that its processor failed. intime says that the
// handler was not cut off by its own Timeout, so that an ended ctx means the
// drain's deadline; trial that the pool's circuit waits to be told of it.
func (p *Pipeline) fail(ctx context.Context, m *Message, err error, intime, trial bool) verdict {
	if !intime {
		ctx = context.WithoutCancel(ctx)
	}
	r, course := p.decide(ctx, m, err, nil)
	if course == courseHold {
		p.pool.circuit.fail(r.message, err, trial)
		return parked
	}
	if trial {
		p.pool.circuit.tried(false)
	}
	if course == courseNone {
		return gone
	}
	p.parker.park(r)
	return parked
}

// giveUp takes the policy's action for m.
func (p *Pipeline) giveUp(m *Message) {
	m.action = p.cfg.Failure.Action
	switch m.action {
	case ActionDeadLetter:
		p.deadLetters.put(m)
		return
	case ActionStopPipeline:
		p.stop(fmt.Errorf("message %s failed: %w", m.ID(), m.err))
		p.release(m)
		return
	case ActionRequeueOnce:
		m.action = ActionRequeue
		if m.Redelivered {
			m.action = ActionReject
		}
	}
	if m.action == ActionRequeue {
		p.count.requeued.Add(1)
	}
	p.log().Warn("message failed", "id", m.ID(), "action", m.action.String(), "attempt", m.Attempt, "err", m.err)
	p.settle(m, stateFailed)
}
