package check

import (
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// countIDs compares the sets: what was sent, what was seen, what is dead-lettered, what is left.
func (c *run) countIDs() {
	for _, m := range c.order {
		found := m.sunk || m.dead
		switch {
		case m.state == ledger.Acked && !found && !m.left && m.gap != "":
			c.result.add(Removed, "%s %s", m.id, m.gap)
		case m.state == ledger.Acked && !found && !m.left:
			c.result.add(Lost, "%s %v", m.id, m.places)
		case m.state == ledger.Unknown && found:
			c.result.add(Recovered, "%s", m.id)
		}
		if m.seen > 0 && m.dead {
			c.result.add(Double, "%s", m.id)
		}
	}
	if n := c.result.Counts[Double]; n > c.Rules.Doubles {
		c.over(OverDoubles, Double, n-c.Rules.Doubles)
	}
	for _, o := range c.Sink {
		if o.Stage != ledger.Success {
			continue
		}
		c.result.Observations++
		c.countContent(o.ID, o.Sum)
		if why := c.gapAt(o.Source, o.Partition, o.Offset); why == ledger.Aborted && c.Rules.Committed {
			c.result.add(AbortedSeen, "%s at %s/%d/%d", o.ID, o.Source, o.Partition, o.Offset)
		}
	}
	for _, d := range c.Dead {
		sum := d.Sum
		if m := c.messages[d.ID]; m != nil && d.Reference != "" {
			sum = m.sum // its content is not the message's; whether its hash is, is for who knows the bodies
		}
		c.countContent(d.ID, sum)
	}
}

func (c *run) countContent(id, sum string) {
	if m := c.messages[id]; m == nil {
		c.result.add(Phantom, "%s", id)
	} else if m.sum != sum {
		c.result.add(Corrupt, "%s", id)
	}
}

// over counts what exceeds a rule, and names who was counted.
func (c *run) over(counter, of Counter, n int) {
	c.result.Counts[counter] = n
	c.result.First[counter] = c.result.First[of]
}

// countRepeats counts successes beyond the first. A repeat at another offset is the producer's: the log has the message twice; and so
// are as many as it tried again, where there are no offsets.
func (c *run) countRepeats() {
	before := map[string]ledger.Observation{}
	spare := map[string]int{}
	for _, o := range c.Sink {
		if o.Stage != ledger.Success {
			continue
		}
		last, again := before[o.ID]
		before[o.ID] = o
		if !again {
			if m := c.messages[o.ID]; m != nil && o.Tag != 0 {
				spare[o.ID] = max(0, m.sends-1)
			}
			continue
		}
		if last.Partition != o.Partition || last.Offset != o.Offset || spare[o.ID] > 0 {
			spare[o.ID]--
			c.result.add(DupProducer, "%s", o.ID)
			continue
		}
		c.countRepeat(last, o)
	}
	if n := c.result.Counts[DupAfter]; n > c.Rules.Duplicates {
		c.over(OverDuplicates, DupAfter, n-c.Rules.Duplicates)
	}
}

func (c *run) countRepeat(last, o ledger.Observation) {
	c.result.add(Duplicates, "%s", o.ID)
	if o.Tag != 0 && !o.Redelivered {
		c.result.add(DupUnmarked, "%s", o.ID)
	}
	if f := c.faultBetween(last, o); f != nil {
		c.result.add(DupAfter, "%s after %s %s", o.ID, f.Kind, f.Target)
		return
	}
	c.result.add(DupUnexplained, "%s at %s/%d/%d", o.ID, o.Source, o.Partition, o.Offset)
}

// faultBetween is a fault that explains a repeat: it had begun, and had not ended long before, or where there was a backlog, not long
// before the observation that it repeats.
func (c *run) faultBetween(last, o ledger.Observation) *ledger.Fault {
	latest := o.At
	if c.Rules.Backlog {
		latest = last.At
	}
	for i := range c.faults {
		f := &c.faults[i]
		if f.From > o.At {
			break
		}
		over := f.Until != 0 && latest > f.Until+int64(c.Rules.Slack)
		if !f.Clean && !over && f.Hits(o.Source, o.Partition) {
			return f
		}
	}
	return nil
}
