package check

import (
	"slices"
	"sort"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// checkEnd looks at what is left, at whether metrics add up, and at whether all of the wire could be read.
func (c *run) checkEnd() {
	for _, e := range c.Wire {
		if e.Kind == wire.Undecodable && !c.Rules.Undecodable {
			c.result.add(Undecoded, "connection %d: %s", e.Conn, e.Text)
		}
	}
	if !c.Rules.Residual {
		if n := len(c.Residual); n > 0 {
			c.result.add(EndState, "%d messages are left in the source, the first %s", n, c.Residual[0].ID)
		}
		if c.End.Lag != 0 || c.End.Ready != 0 || c.End.Unacked != 0 {
			c.result.add(EndState, "lag %d, ready %d, unacked %d", c.End.Lag, c.End.Ready, c.End.Unacked)
		}
	}
	switch c.End.GroupState {
	case "", "Stable", "Empty":
	default:
		c.result.add(EndState, "the group is %s", c.End.GroupState)
	}
	if m := c.End.Metrics; m != nil && m.Received != m.Succeeded+m.DeadLettered+m.Retried+m.Abandoned+m.InFlight {
		c.result.add(EndState, "metrics do not add up: %+v", *m)
	}
}

// countRecovery measures from the end of each fault to the next success.
func (c *run) countRecovery() {
	var successes []int64
	for _, o := range c.Sink {
		if o.Stage == ledger.Success {
			successes = append(successes, o.At)
		}
	}
	for _, f := range c.faults {
		if f.Until == 0 || f.Clean {
			continue
		}
		next := sort.Search(len(successes), func(i int) bool { return successes[i] >= f.Until })
		if next < len(successes) {
			c.result.Recoveries = append(c.result.Recoveries, time.Duration(successes[next]-f.Until))
		}
	}
	slices.Sort(c.result.Recoveries)
}
