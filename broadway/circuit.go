package broadway

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// CircuitState says whether a stage may work.
type CircuitState uint8

const (
	// CircuitClosed lets everything pass.
	CircuitClosed CircuitState = iota
	// CircuitOpen lets nothing pass: what the stage needs is unavailable.
	CircuitOpen
	// CircuitHalfOpen lets one message pass, to see whether it still is.
	CircuitHalfOpen
)

// String is the state's name in metrics: "closed", "open", "half_open".
func (s CircuitState) String() string {
	names := [...]string{"closed", "open", "half_open"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// CircuitStats is a picture of the circuit of a stage.
type CircuitStats struct {
	State CircuitState
	// Since is when the circuit last opened, or closed; zero if it never did. The
	// tries in between do not count.
	Since time.Time
	// Err is what opened it, or what the last try met; nil when it is closed.
	Err error
	// Held is how many messages wait for it to close, of the processor's queue. A
	// batcher keeps them in its closed batches.
	Held int
}

// circuit keeps a stage from handling while what it needs is unavailable, or while
// too many of its handlers do not return.
type circuit struct {
	p     *Pipeline
	stage string
	// passes is told of messages that were held and may go on, of none when only
	// the state has changed. It takes no lock of the circuit's.
	passes func([]*Message)
	shut   atomic.Bool  // not everything passes
	count  atomic.Int64 // of held

	mu       sync.Mutex // protects following fields
	state    CircuitState
	halted   bool // too many handlers are stuck
	trying   bool // half-open, and the one try is out
	since    time.Time
	err      error
	failures int           // openings in a row
	wait     time.Duration // the last
	logged   time.Time     // the last opening that was
	told     bool          // the opening before now was logged
	held     []*Message
}

func (c *circuit) init(p *Pipeline, stage string, passes func([]*Message)) {
	c.p, c.stage, c.passes = p, stage, passes
}

// fate is what becomes of a message before its handler.
type fate uint8

const (
	fatePass    fate = iota
	fateTry          // it passes, and decides whether others do: see fail and tried
	fateHeld         // the circuit has it
	fateRelease      // its time is over
)

// enter asks for m to pass.
func (c *circuit) enter(m *Message) fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == CircuitClosed && !c.halted:
		return fatePass
	case c.p.cut.Load() || m.withdrawn():
		return fateRelease // see hurry
	case c.tryLocked():
		return fateTry
	}
	m.retry = true // it is claimed, and its key waits for it
	c.held = append(c.held, m)
	c.count.Store(int64(len(c.held)))
	return fateHeld
}

// admit is enter for a batcher, which keeps its messages itself.
func (c *circuit) admit() fate {
	if !c.shut.Load() {
		return fatePass
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == CircuitClosed && !c.halted:
		return fatePass
	case c.tryLocked():
		return fateTry
	}
	return fateHeld
}

// mayPass says whether admit would not return fateHeld.
func (c *circuit) mayPass() bool {
	if !c.shut.Load() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.halted && (c.state == CircuitClosed || c.state == CircuitHalfOpen && !c.trying)
}

func (c *circuit) tryLocked() bool {
	if c.halted || c.state != CircuitHalfOpen || c.trying {
		return false
	}
	c.trying = true
	return true
}

// fail opens the circuit because of err; try says that the one try met it. m, if
// any, waits until it closes.
func (c *circuit) fail(m *Message, err error, try bool) {
	c.mu.Lock()
	opens := c.state == CircuitClosed
	if opens && time.Since(c.since) > max(c.wait, time.Second) {
		c.failures = 0 // it was closed for long enough to count as mended
	}
	if opens || try {
		c.failures++
		c.openLocked(err)
	}
	var back []*Message
	if m != nil && (c.p.cut.Load() || m.withdrawn()) {
		m.giveBack = true
		back = []*Message{m}
	} else if m != nil {
		c.held = append(c.held, m)
		c.count.Store(int64(len(c.held)))
	}
	log := opens && time.Since(c.logged) >= time.Second
	if log {
		c.logged = time.Now()
	}
	c.told = log || c.told && !opens
	c.mu.Unlock()
	if opens || try {
		c.tell(CircuitOpen, err)
	}
	if log {
		c.p.log().Error("circuit opened: the stage stops until a message passes", "stage", c.stage, "err", err)
	}
	if opens || back != nil {
		c.passes(back)
	}
	if opens {
		c.p.ledger.look() // of a batcher: the others may go on
	}
}

// openLocked opens the circuit until the next try.
func (c *circuit) openLocked(err error) {
	if c.state == CircuitClosed {
		c.since = time.Now()
	}
	c.state, c.trying, c.err = CircuitOpen, false, err
	c.shut.Store(true)
	c.wait = c.p.cfg.Failure.Backoff.Delay(c.failures, rand.Float64())
	c.p.parker.after(c.wait, c.halfOpen)
}

// halfOpen lets the next message pass, the oldest that is held if there is one.
func (c *circuit) halfOpen() {
	c.mu.Lock()
	if c.state != CircuitOpen {
		c.mu.Unlock()
		return
	}
	c.state = CircuitHalfOpen
	err := c.err
	next := c.nextLocked()
	c.mu.Unlock()
	c.tell(CircuitHalfOpen, err)
	c.passes(next)
}

// nextLocked takes what may pass now out of what is held.
func (c *circuit) nextLocked() (next []*Message) {
	n := 0
	switch {
	case c.halted:
	case c.state == CircuitClosed:
		n = len(c.held)
	case c.state == CircuitHalfOpen:
		n = min(1, len(c.held))
	}
	next, c.held = c.held[:n:n], c.held[n:]
	c.count.Store(int64(len(c.held)))
	return next
}

// tried ends a try: with success the circuit closes; after another failure, which
// says nothing, the next one comes as late as this one did.
func (c *circuit) tried(success bool) {
	c.mu.Lock()
	if c.state != CircuitHalfOpen || !c.trying {
		c.mu.Unlock()
		return
	}
	if !success {
		c.openLocked(c.err)
		c.mu.Unlock()
		return
	}
	c.state, c.trying, c.err = CircuitClosed, false, nil
	open := time.Since(c.since)
	c.since = time.Now()
	c.shut.Store(c.halted)
	next := c.nextLocked()
	log := c.told
	c.mu.Unlock()
	c.tell(CircuitClosed, nil)
	if log {
		c.p.log().Info("circuit closed", "stage", c.stage, "open_for", open)
	}
	c.passes(next)
	c.p.ledger.look()
}

// halt stops the stage while tooMany, or lets it go on. It asks with its lock, so
// that the last of several callers has the last word.
func (c *circuit) halt(tooMany func() bool) {
	c.mu.Lock()
	halted := tooMany()
	if c.halted == halted {
		c.mu.Unlock()
		return
	}
	c.halted = halted
	c.shut.Store(halted || c.state != CircuitClosed)
	next := c.nextLocked()
	c.mu.Unlock()
	if halted {
		c.p.log().Error("too many handlers do not return: the stage stops", "stage", c.stage)
	}
	c.passes(next)
	c.p.ledger.look()
}

// hurry lets those of the held messages go that pick chooses, to be given back.
func (c *circuit) hurry(pick func(*Message) bool) {
	c.mu.Lock()
	var chosen []*Message
	c.held = slices.DeleteFunc(c.held, func(m *Message) bool {
		if !pick(m) {
			return false
		}
		m.giveBack = true
		chosen = append(chosen, m)
		return true
	})
	c.count.Store(int64(len(c.held)))
	c.mu.Unlock()
	if len(chosen) > 0 {
		c.passes(chosen)
	}
}

func (c *circuit) tell(s CircuitState, err error) {
	if o, ok := c.p.cfg.Observer.(CircuitObserver); ok {
		o.Circuit(CircuitEvent{Pipeline: c.p.cfg.Name, Stage: c.stage, State: s, Err: err})
	}
}

func (c *circuit) stats() CircuitStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return CircuitStats{State: c.state, Since: c.since, Err: c.err, Held: len(c.held)}
}

// unavailable says whether err means an outage, not a fault of the message: it is
// marked so, or FailurePolicy.Unavailable says it.
func (p *Pipeline) unavailable(err error, kind adviceKind) (outage bool) {
	ask := p.cfg.Failure.Unavailable
	if kind != adviseRetry || ask == nil {
		return kind == adviseUnavailable
	}
	defer func() {
		if v := recover(); v != nil {
			p.log().Error("FailurePolicy.Unavailable panicked", "panic", v)
			outage = false
		}
	}()
	return ask(err)
}

// errOpen is why a stage with an open circuit is unhealthy.
func (s CircuitStats) errOpen(stage string) error {
	if s.State == CircuitClosed {
		return nil
	}
	return fmt.Errorf("broadway: the circuit of %s is open since %s: %w", stage, s.Since.Format(time.RFC3339), s.Err)
}
