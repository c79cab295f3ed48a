package broadway

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"runtime"
	"slices"
	"time"
)

// FieldError is one mistake in a Config. New returns all of them, joined.
type FieldError struct {
	// Field is the path of the field, such as "Batchers[0].Size".
	Field string
	// Value is what it was set to.
	Value any
	// Reason says what is wrong and what would be right.
	Reason string
}

// Error is "Field: Value: Reason", or "Field: Reason" without a value.
func (e *FieldError) Error() string {
	if e.Value == nil {
		return fmt.Sprintf("%s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("%s: %v: %s", e.Field, e.Value, e.Reason)
}

// withDefaults is a copy of c with every default resolved, but for MaxUnsettled.
func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "pipeline")
	c.MaxUnsettledBytes = min(cmp.Or(c.MaxUnsettledBytes, DefaultMaxUnsettledBytes), maxBytes)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, DefaultDrainTimeout)
	c.ReconnectBackoff = c.ReconnectBackoff.or(Backoff{Initial: time.Second, Max: 30 * time.Second, Factor: 2, Jitter: DefaultBackoffJitter})
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Observer == nil {
		c.Observer = nopObserver{}
	}
	c.MessageLimits = c.MessageLimits.withDefaults()
	c.Failure.MaxAttempts = cmp.Or(c.Failure.MaxAttempts, DefaultMaxAttempts)
	c.Failure.Backoff = c.Failure.Backoff.or(Backoff{
		Initial: DefaultBackoffInitial, Max: DefaultBackoffMax, Factor: DefaultBackoffFactor, Jitter: DefaultBackoffJitter,
	})
	p := &c.Processor
	p.Concurrency = cmp.Or(p.Concurrency, 2*runtime.GOMAXPROCS(0))
	p.MaxDemand = cmp.Or(p.MaxDemand, DefaultMaxDemand)
	p.MinDemand = cmp.Or(p.MinDemand, p.MaxDemand/2)
	p.MaxStuck = cmp.Or(p.MaxStuck, min(max(p.Concurrency, 1), maxConcurrency))
	c.Batchers = slices.Clone(c.Batchers)
	for i := range c.Batchers {
		b := &c.Batchers[i]
		b.Name = cmp.Or(b.Name, DefaultBatcher)
		b.Concurrency = cmp.Or(b.Concurrency, 1)
		b.Size = cmp.Or(b.Size, DefaultBatchSize)
		b.Timeout = cmp.Or(b.Timeout, DefaultBatchTimeout)
		b.MaxStuck = cmp.Or(b.MaxStuck, min(max(b.Concurrency, 1), maxConcurrency))
	}
	return c
}

// or takes from d what b leaves at zero.
func (b Backoff) or(d Backoff) Backoff {
	switch {
	case b.Initial == 0 && b.Max > 0:
		b.Initial = min(d.Initial, b.Max)
	case b.Max == 0 && b.Initial > 0:
		b.Max = max(d.Max, b.Initial)
	}
	b.Initial, b.Max = cmp.Or(b.Initial, d.Initial), cmp.Or(b.Max, d.Max)
	b.Factor, b.Jitter = cmp.Or(b.Factor, d.Factor), cmp.Or(b.Jitter, d.Jitter)
	return b
}

// mistakes collects field errors.
type mistakes []error

func (e *mistakes) add(bad bool, field string, value any, reason string, args ...any) {
	if bad {
		*e = append(*e, &FieldError{Field: field, Value: value, Reason: fmt.Sprintf(reason, args...)})
	}
}

// The most that New accepts: a slip of the finger must not exhaust the machine,
// and sums of them must not overflow.
const (
	maxConcurrency = 1 << 16
	maxMessages    = 1 << 24
	maxAttempts    = 1000
	maxBytes       = 1 << 53 // more is as good as none, and means that
)

func (e *mistakes) between(field string, value, most int) {
	e.add(value < 1 || value > most, field, value, "must be between 1 and %d", most)
}

// check finds the mistakes in c, whose defaults are resolved.
func (c *Config) check() mistakes {
	var e mistakes
	e.add(len(c.Producers) == 0, "Producers", nil, "at least one is required")
	seen := map[Producer]bool{} // by pointer
	for i, p := range c.Producers {
		field := fmt.Sprintf("Producers[%d]", i)
		e.add(p == nil, field, nil, "must not be nil")
		if p != nil && reflect.TypeOf(p).Kind() == reflect.Pointer {
			e.add(seen[p], field, nil, "is used twice")
			seen[p] = true
		}
		if v, ok := p.(Validator); ok {
			e.nest(field, v.Validate())
		}
	}
	c.Processor.check(&e)
	names := map[string]bool{}
	for i := range c.Batchers {
		field := fmt.Sprintf("Batchers[%d].", i)
		b := &c.Batchers[i]
		b.check(&e, field)
		e.add(names[b.Name], field+"Name", b.Name, "is used twice")
		names[b.Name] = true
	}
	c.Failure.check(&e)
	c.MessageLimits.check(&e)
	c.ReconnectBackoff.check(&e, "ReconnectBackoff.")
	e.add(c.MaxUnsettled < 0 || c.MaxUnsettled > maxMessages, "MaxUnsettled", c.MaxUnsettled,
		"must be between 1 and %d, or 0 for the default", maxMessages)
	e.add(c.MaxUnsettledBytes < 1, "MaxUnsettledBytes", c.MaxUnsettledBytes, "must be at least 1, or 0 for the default")
	e.add(c.DrainTimeout < 0, "DrainTimeout", c.DrainTimeout, "must be positive")
	return e
}

// nest adds the mistakes that a part reports of itself.
func (e *mistakes) nest(field string, err error) {
	if err == nil {
		return
	}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		var f *FieldError
		if errors.As(err, &f) {
			*e = append(*e, &FieldError{Field: field + "." + f.Field, Value: f.Value, Reason: f.Reason})
		} else {
			*e = append(*e, &FieldError{Field: field, Reason: err.Error()})
		}
	}
}

func (p *ProcessorConfig) check(e *mistakes) {
	e.add(p.Handler == nil, "Processor.Handler", nil, "is required")
	e.between("Processor.Concurrency", p.Concurrency, maxConcurrency)
	e.between("Processor.MaxDemand", p.MaxDemand, maxMessages)
	e.add(p.MinDemand < 0 || p.MinDemand >= max(p.MaxDemand, 1), "Processor.MinDemand", p.MinDemand,
		"must be at least 0 and less than MaxDemand, which is %d", p.MaxDemand)
	e.add(p.Timeout < 0, "Processor.Timeout", p.Timeout, "must not be negative; 0 means none")
	e.stuck("Processor.", p.MaxStuck, p.RetryStuck, p.Timeout)
	e.add(p.Unordered && p.PartitionBy != nil, "Processor.Unordered", true, "cannot be combined with PartitionBy")
}

func (b *BatcherConfig) check(e *mistakes, field string) {
	e.add(b.Reporter == nil, field+"Reporter", nil, "is required")
	e.between(field+"Concurrency", b.Concurrency, maxConcurrency)
	e.between(field+"Size", b.Size, maxMessages)
	e.add(b.Bytes < 0, field+"Bytes", b.Bytes, "must not be negative; 0 means no limit")
	e.add(b.Timeout < -1, field+"Timeout", b.Timeout, "must be positive, or -1 for never")
	e.add(b.ReportTimeout < 0, field+"ReportTimeout", b.ReportTimeout, "must not be negative; 0 means none")
	e.stuck(field, b.MaxStuck, b.RetryStuck, b.ReportTimeout)
}

// stuck checks what is said of handlers that do not return.
func (e *mistakes) stuck(field string, most int, retry bool, timeout time.Duration) {
	e.add(most < -1 || most > maxConcurrency, field+"MaxStuck", most,
		"must be between 1 and %d, -1 for none, or 0 for the default", maxConcurrency)
	e.add(retry && timeout == 0, field+"RetryStuck", true, "needs a time-out: without one no handler is stuck")
}

func (f *FailurePolicy) check(e *mistakes) {
	e.between("Failure.MaxAttempts", f.MaxAttempts, maxAttempts)
	f.Backoff.check(e, "Failure.Backoff.")
	e.add(f.Action > ActionStopPipeline, "Failure.Action", uint8(f.Action), "is no action")
	e.add(f.Action == ActionDeadLetter && f.DeadLetter == nil, "Failure.DeadLetter", nil, "is required with the action dead_letter")
	if v, ok := f.DeadLetter.(Validator); ok {
		e.nest("Failure.DeadLetter", v.Validate())
	}
	e.add(f.Action != ActionDeadLetter && f.DeadLetter != nil, "Failure.Action", f.Action, "must be dead_letter when DeadLetter is set")
}

func (b *Backoff) check(e *mistakes, field string) {
	e.add(b.Initial < 0, field+"Initial", b.Initial, "must be positive")
	e.add(b.Max < b.Initial, field+"Max", b.Max, "must be at least Initial, which is %v", b.Initial)
	e.add(!(b.Factor >= 1) || math.IsInf(b.Factor, 0), field+"Factor", b.Factor, "must be at least 1")
	e.add(!(b.Jitter == -1 || b.Jitter >= 0 && b.Jitter <= 1), field+"Jitter", b.Jitter, "must be between 0 and 1, or -1 for none")
}

// bound resolves MaxUnsettled, asks the sources for their traits, and checks what
// concerns both.
func (c *Config) bound(sources []*source, e *mistakes) {
	given := c.MaxUnsettled
	if given == 0 {
		c.MaxUnsettled = c.roomForAll()
	}
	limits := Limits{MaxUnsettled: c.MaxUnsettled, MaxUnsettledBytes: c.MaxUnsettledBytes, Share: max(c.MaxUnsettled/len(sources), 1)}
	prefetch, shared := 0, 0
	for i, s := range sources {
		s.traits.Name = fmt.Sprintf("%d", i)
		if d, ok := s.producer.(Describer); ok {
			s.traits = d.Describe(limits)
		}
		s.name = cmp.Or(s.traits.Name, fmt.Sprintf("%d", i))
		prefetch += s.traits.Prefetch
		if s.traits.Prefetch == 0 {
			shared++
		}
		c.checkSource(s, fmt.Sprintf("Producers[%d]", i), e)
	}
	if given == 0 {
		c.MaxUnsettled = max(c.MaxUnsettled, prefetch+shared)
	}
	e.add(c.MaxUnsettled < prefetch+shared, "MaxUnsettled", c.MaxUnsettled,
		"must be at least %d: the prefetch of all producers, and 1 for each that has none", prefetch+shared)
	reach, raise := c.MaxUnsettled, "raise MaxUnsettled"
	if shared == 0 {
		reach, raise = prefetch, "raise the prefetch of the producers"
	}
	if len(c.Batchers) > 1 {
		reach /= 2
		raise += ", of which one of several batchers may hold half"
	}
	for i, b := range c.Batchers {
		e.add(b.Size > reach, fmt.Sprintf("Batchers[%d].Size", i), b.Size,
			"a batch can never fill: the batcher holds no more than %d messages at once; %s", reach, raise)
	}
}

// roomForAll is the default of MaxUnsettled: enough for every worker to have its
// demand, and every reporter a batch while the next one fills.
func (c *Config) roomForAll() int {
	limit := func(n, most int) int { return min(max(n, 1), most) }
	p := c.Processor
	n := limit(p.Concurrency, maxConcurrency) * limit(p.MaxDemand, maxMessages)
	for _, b := range c.Batchers {
		n += limit(b.Size, maxMessages) * (limit(b.Concurrency, maxConcurrency) + 1)
	}
	return limit(n, maxMessages)
}

// checkSource checks the table of source and failure action.
func (c *Config) checkSource(s *source, field string, e *mistakes) {
	a := c.Failure.Action
	e.add(s.traits.Broker && a == ActionNone, "Failure.Action", nil,
		"is required: %s (%s) keeps what is not settled, so say what becomes of a message that failed for good", field, s.traits.Kind)
	always := ActionSet(ActionNone, ActionDeadLetter, ActionDrop, ActionStopPipeline)
	e.add(!always.Has(a) && !s.traits.Actions.Has(a), "Failure.Action", a, "%s (%s) cannot do that; it can: %s", field, s.traits.Kind, always|s.traits.Actions)
	worst := c.Failure.Backoff.total(min(c.Failure.MaxAttempts, maxAttempts))
	if len(c.Batchers) > 0 {
		worst *= 2 // the processor's attempts, and then the reporter's
	}
	e.add(s.traits.AckTimeout > 0 && worst >= s.traits.AckTimeout/2, "Failure.Backoff", worst,
		"the waits of %d attempts of each stage must stay under half of the time-out of %s for acknowledging, which is %v",
		c.Failure.MaxAttempts, field, s.traits.AckTimeout)
}

// order resolves PartitionBy: the user's, or what the producers promise.
func (c *Config) order(sources []*source) {
	if c.Processor.PartitionBy != nil || c.Processor.Unordered {
		return
	}
	promised := map[*source]bool{}
	for _, s := range sources {
		promised[s] = s.traits.PartitionBy != nil
		if promised[s] {
			c.Processor.PartitionBy = s.traits.PartitionBy
		}
	}
	if len(sources) == 1 || c.Processor.PartitionBy == nil {
		return
	}
	c.Processor.PartitionBy = func(m *Message) uint64 {
		s := m.chunk.source
		if promised[s] {
			return s.traits.PartitionBy(m)
		}
		return uint64(m.seq) // no order was promised: spread
	}
}
