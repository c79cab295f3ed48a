package check

import (
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// line is a sequence in which a key's messages must come. Order holds within one log: a partition, one life of it.
type line struct {
	key, source string
	partition   int32
	life        int
}

// progress is how far a line has come.
type progress struct {
	newest int64
	seen   map[int64]bool
}

// countOrder looks at the first observation of each position of a key, and at repeats.
func (c *run) countOrder() {
	lines := map[line]*progress{}
	for _, o := range c.Sink {
		if o.Stage != ledger.Success || o.Key == "" {
			continue
		}
		at := line{o.Key, o.Source, o.Partition, c.life(o.At)}
		p := lines[at]
		if p == nil {
			p = &progress{newest: -1, seen: map[int64]bool{}}
			lines[at] = p
		}
		switch {
		case p.seen[o.KeySeq]:
			c.result.add(Rewinds, "%s", o.ID)
		case o.KeySeq < p.newest && c.Rules.Ordered:
			c.result.add(Inversions, "%s: %d of key %s after %d", o.ID, o.KeySeq, o.Key, p.newest)
		}
		p.seen[o.KeySeq] = true
		p.newest = max(p.newest, o.KeySeq)
	}
}

// countStale looks for writes of a generation that another had taken over from.
func (c *run) countStale() {
	newest := map[place]int32{}
	for _, o := range c.Sink {
		if o.Stage != ledger.Success || o.Generation == 0 {
			continue
		}
		at := place{source: o.Source, partition: o.Partition, life: c.life(o.At)}
		if o.Generation < newest[at] {
			c.result.add(StaleWrites, "%s by generation %d after %d", o.ID, o.Generation, newest[at])
		}
		newest[at] = max(newest[at], o.Generation)
	}
	if n := c.result.Counts[StaleWrites]; n > c.Rules.Stale {
		c.over(OverStale, StaleWrites, n-c.Rules.Stale)
	}
}
