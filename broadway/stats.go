package broadway

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// State is where a pipeline stands in its life.
type State uint8

const (
	// StateNew has not run.
	StateNew State = iota
	// StateConnecting makes its first connections.
	StateConnecting
	// StateRunning fetches when there is demand.
	StateRunning
	// StatePaused fetches nothing; queued work goes on.
	StatePaused
	// StateDraining fetches no more and finishes its work.
	StateDraining
	// StateStopped has returned from Run.
	StateStopped
)

// String is the state's name.
func (s State) String() string {
	names := [...]string{"new", "connecting", "running", "paused", "draining", "stopped"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Stats is a picture of a pipeline. Counts are since Run; a message counts as
// settled when it left the pipeline with the outcome named.
type Stats struct {
	Name  string
	State State

	// Fetched is what producers returned. Each of these is settled once, as Succeeded,
	// Failed (dropped, rejected or requeued after the last attempt), DeadLettered, or
	// Released: given back unsettled, so that it comes again. Retried counts attempts
	// after the first.
	Fetched      int64
	Succeeded    int64
	Failed       int64
	DeadLettered int64
	Released     int64
	Retried      int64

	// Stale counts settles of messages whose AckRef had ended; SettledTwice those of
	// messages that were settled before. Neither reaches the source.
	Stale        int64
	SettledTwice int64

	// Unsettled is what was fetched and is not settled, now and at its highest;
	// MaxUnsettled is its bound. The same in bytes.
	Unsettled             int
	HighestUnsettled      int
	MaxUnsettled          int
	UnsettledBytes        int64
	HighestUnsettledBytes int64
	MaxUnsettledBytes     int64
	// Stuck are the handlers and reporters that do not return, and Late counts those
	// that did so after all.
	Stuck []Handling
	Late  int64
	// OldestUnsettled is the age of the oldest message that is not settled.
	OldestUnsettled time.Duration
	// Recalled counts messages that were given back since they had waited for half of
	// their source's Traits.AckTimeout: Released counts them, too. Overdue is how
	// many are not settled for longer than that, now: handlers have them.
	Recalled int64
	Overdue  int

	Producers []ProducerStats
	Processor ProcessorStats
	Batchers  []BatcherStats

	// WaitingFor says, in words, why nothing moves when nothing does: "messages",
	// "a free reporter of batcher default: 3 batches wait", ….
	WaitingFor string
	// Err is why the pipeline is unhealthy, nil when it is not.
	Err error

	deadLetters error
}

// ProducerStats is a picture of one producer.
type ProducerStats struct {
	Name string
	Kind string
	// Connected says that the first connection was made.
	Connected bool
	// TLSInsecure is that of its Traits.
	TLSInsecure bool
	// Asked is how many messages the Fetch that runs now may return; 0 when
	// none runs.
	Asked int
	// Fetched counts its messages.
	Fetched int64
	// LastFetch is when Fetch last returned messages.
	LastFetch time.Time
	// Err is what Fetch, Connect or the producer's Health reported last, nil
	// when it works.
	Err error
	Lag []Lag
	// Gaps is nil when the producer does not count them.
	Gaps *Gaps
}

// ProcessorStats is a picture of the pool.
type ProcessorStats struct {
	Concurrency int
	// Busy counts workers within a handler that is not stuck.
	Busy int
	// Stuck counts handlers that do not return: see Stats.Stuck.
	Stuck int
	// Oldest is the handling that has run for longest and is not stuck; none when
	// no worker is busy.
	Oldest []Handling
	// Queued is how many messages wait for a worker; Parked is how many wait
	// for their next attempt, at any stage.
	Queued int
	Parked int
	// Circuit is the pool's.
	Circuit CircuitStats
}

// BatcherStats is a picture of one batcher and its reporters.
type BatcherStats struct {
	Name        string
	Concurrency int
	// Held is how many messages it holds, now and at its highest: those that
	// wait for it, in open batches, in closed ones and being reported. Bound is
	// the most that it may hold.
	Held        int
	HighestHeld int
	Bound       int
	// Open and Closed count batches that fill, and that wait for a reporter.
	Open   int
	Closed int
	// Reporting counts reporters at work that are not stuck.
	Reporting int
	// Stuck counts reporters that do not return: see Stats.Stuck.
	Stuck int
	// Oldest is the report that has run for longest and is not stuck; none when no
	// reporter is at work.
	Oldest []Handling
	// Circuit is that of its reporters.
	Circuit CircuitStats
}

// Stage is one line of a Topology.
type Stage struct {
	// Kind is "producer", "processor", "batcher" or "reporter".
	Kind string
	Name string
	// Concurrency is how many of it run at once.
	Concurrency int
}

// counters count since Run.
type counters struct {
	succeeded, failed, deadLettered, released, stale atomic.Int64
	retried, requeued                                atomic.Int64
	doubled                                          atomic.Int64 // settles of a settled message
	cut                                              atomic.Int64 // released after the handlers' deadline
	late                                             atomic.Int64 // handlers that returned after they were stuck
	recalled                                         atomic.Int64 // given back for they waited for long: see recall
	full                                             atomic.Int64 // references at their limit
}

// back counts messages that sources got back, and may deliver again.
func (c *counters) back() int64 {
	return c.released.Load() + c.requeued.Load() + c.stale.Load()
}

func (c *counters) settled(e SettleEvent) {
	c.succeeded.Add(int64(e.Succeeded))
	c.failed.Add(int64(e.Failed))
	c.deadLettered.Add(int64(e.DeadLettered))
	c.released.Add(int64(e.Released))
	c.stale.Add(int64(e.Stale))
}

// Stats is a picture of the pipeline as it is now.
func (p *Pipeline) Stats() Stats {
	st := Stats{
		Name: p.cfg.Name, State: p.state(),
		Succeeded: p.count.succeeded.Load(), Failed: p.count.failed.Load(),
		DeadLettered: p.count.deadLettered.Load(), Released: p.count.released.Load(),
		Retried: p.count.retried.Load(), Stale: p.count.stale.Load(), SettledTwice: p.count.doubled.Load(),
		MaxUnsettled: p.cfg.MaxUnsettled, MaxUnsettledBytes: p.cfg.MaxUnsettledBytes,
		Processor: ProcessorStats{
			Concurrency: p.cfg.Processor.Concurrency,
			Queued:      p.pool.dispatch.queued(), Parked: int(p.parker.waiting()),
			Circuit: p.pool.circuit.stats(),
		},
		Late: p.count.late.Load(), Recalled: p.count.recalled.Load(),
	}
	st.Processor.Busy, st.Processor.Oldest, st.Stuck = p.pool.crew.running()
	st.Processor.Stuck = len(st.Stuck)
	p.ledger.fill(&st)
	var errs []error
	for _, s := range p.sources {
		ps := s.stats()
		st.Fetched += ps.Fetched
		if ps.Err != nil {
			errs = append(errs, fmt.Errorf("producer %s: %w", s.name, ps.Err))
		}
		st.Producers = append(st.Producers, ps)
	}
	errs = append(errs, p.pool.crew.health(), st.Processor.Circuit.errOpen("processor"))
	for _, b := range p.batchers {
		bs := b.stats()
		var stuck []Handling
		_, bs.Oldest, stuck = b.crew.running()
		bs.Stuck = len(stuck)
		st.Stuck = append(st.Stuck, stuck...)
		st.Batchers = append(st.Batchers, bs)
		errs = append(errs, b.crew.health(), bs.Circuit.errOpen("batcher "+b.cfg.Name))
	}
	if p.deadLetters != nil {
		st.deadLetters = p.deadLetters.health()
		errs = append(errs, p.deadLetters.unable(), st.deadLetters)
	}
	p.mu.Lock()
	errs = append(errs, p.cause)
	p.mu.Unlock()
	st.Err = errors.Join(errs...)
	st.WaitingFor = st.waitingFor()
	return st
}

// fill adds what the ledger knows.
func (l *ledger) fill(st *Stats) {
	now := time.Now()
	st.OldestUnsettled, st.Overdue = l.age(now), l.overdue(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Unsettled, st.HighestUnsettled = int(l.taken), int(l.highest)
	st.UnsettledBytes, st.HighestUnsettledBytes = l.bytes.Taken(), l.highestB
}

func (l *ledger) unsettled() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken
}

func (p *Pipeline) state() State {
	select {
	case <-p.over:
		return StateStopped
	default:
	}
	switch {
	case !p.ran.Load():
		return StateNew
	case p.draining.Load():
		return StateDraining
	case p.unfirst.Load() > 0:
		return StateConnecting
	case p.paused.Load():
		return StatePaused
	}
	return StateRunning
}

// waitingFor says why nothing moves, from the back to the front: the last stage
// that holds work and does not hand it on is what the others wait for.
func (st *Stats) waitingFor() string {
	if st.deadLetters != nil {
		return fmt.Sprintf("dead letters: %v", st.deadLetters)
	}
	for _, b := range st.Batchers {
		if err := b.Circuit.errOpen("batcher " + b.Name); err != nil && b.Held > 0 {
			return err.Error()
		}
		if b.Reporting == b.Concurrency && b.Closed > 0 {
			return fmt.Sprintf("a free reporter of batcher %s: %d batches wait", b.Name, b.Closed)
		}
	}
	if err := st.Processor.Circuit.errOpen("processor"); err != nil {
		return err.Error()
	}
	if len(st.Stuck) > 0 && st.Unsettled > 0 && st.Processor.Busy == 0 {
		h := st.Stuck[0]
		return fmt.Sprintf("the handler of %s at %s, which has not returned since %s", h.ID, h.Stage, h.Since.Format(time.RFC3339))
	}
	if st.Processor.Busy == st.Processor.Concurrency && st.Processor.Queued > 0 {
		return fmt.Sprintf("a free worker: %d messages wait", st.Processor.Queued)
	}
	for _, p := range st.Producers {
		switch {
		case p.Err != nil:
			return fmt.Sprintf("producer %s: %v", p.Name, p.Err)
		case st.State == StateConnecting && !p.Connected:
			return fmt.Sprintf("the first connection of %s", p.Name)
		}
	}
	switch {
	case st.State == StatePaused:
		return "resume"
	case st.Unsettled >= st.MaxUnsettled || st.UnsettledBytes > st.MaxUnsettledBytes-leastCharge:
		return fmt.Sprintf("%d unsettled messages to settle", st.Unsettled)
	case st.State == StateRunning && st.Unsettled == 0:
		return "messages"
	}
	return ""
}
