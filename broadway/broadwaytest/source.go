package broadwaytest

import (
	"context"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Source is the other side of a producer under test: a topic, a queue. Each
// property gets a fresh and empty one.
type Source interface {
	// Produce puts payloads at the source, in order, and returns once the source
	// has them for good.
	Produce(ctx context.Context, payloads ...[]byte) error
	// Open makes a producer of the source that is not connected yet. All
	// producers of one Source belong together: what one leaves unsettled, the
	// next one gets. At most one at a time is connected.
	Open(t testing.TB) broadway.Producer
	// Left is how many messages the source still has to deliver, or to deliver
	// again, as it counts them itself. It is asked while no producer is open.
	Left(ctx context.Context) (int, error)
}

// Cutter is an optional interface of a Source.
type Cutter interface {
	// Cut breaks the connections of the open producer, as a network would, or
	// otherwise ends its session. The producer is expected to come back by
	// itself, and to get again what it had not settled.
	Cut(ctx context.Context) error
}

// Finisher is required of a Source with Features.Finite.
type Finisher interface {
	// Finish says that nothing more will be produced.
	Finish(ctx context.Context) error
}

// Meter is an optional interface of a Source that knows what it handed out.
type Meter interface {
	// HandedOut is how many messages the source has given to the open producer,
	// client buffers included, that are not settled.
	HandedOut(ctx context.Context) (int, error)
}

// SettleCounter is an optional interface of a Source that sees single settles.
type SettleCounter interface {
	// Settles is how many settles of messages the source was sent in all.
	Settles(ctx context.Context) (int, error)
}

// Features say what a kind of source cannot promise. The zero value is the
// strictest suite.
type Features struct {
	// Virtual says that source and producer live in this process and wait for
	// nothing outside: the properties run within testing/synctest, where time is
	// free and a goroutine left behind fails.
	Virtual bool
	// Finite says that the source can end: it is a Finisher.
	Finite bool
	// Cumulative says that the source settles by position, as Kafka does: what is
	// settled behind something unsettled may be delivered again.
	Cumulative bool
	// Unordered says that the source does not keep the order of what is produced.
	Unordered bool
	// UnmarkedRedelivery says that Message.Redelivered stays false.
	UnmarkedRedelivery bool
	// UnstableIDs says that a redelivered message may have another ID.
	UnstableIDs bool
	// UncountedCrashes is how many crashes a source that is a Crasher may need
	// before it suspects a message: they come on top of MaxAttempts.
	UncountedCrashes int
	// Timeout is how long to wait for what must happen. Default 30 s.
	Timeout time.Duration
	// Quiet is how long to watch that nothing happens. Default 300 ms.
	Quiet time.Duration
}

func (f Features) withDefaults() Features {
	if f.Timeout == 0 {
		f.Timeout = 30 * time.Second
	}
	if f.Quiet == 0 {
		f.Quiet = 300 * time.Millisecond
	}
	return f
}

// Property is one promise of a conformance suite.
type Property struct {
	// Name is the name of the subtest.
	Name string
	// Promise says what is promised.
	Promise string

	check func(*check)
}

// Check holds one fresh source against the property. It reports to t, which may
// be the caller's own. It must run within testing/synctest when f.Virtual.
func (p Property) Check(t testing.TB, f Features, newSource func(testing.TB) Source) {
	t.Helper()
	p.check(&check{TB: t, Features: f.withDefaults(), newSource: newSource})
}
