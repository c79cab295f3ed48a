package check

import (
	"cmp"
	"slices"
	"sort"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// history is a partition's messages by offset, and when each prefix of them was settled as a whole.
type history struct {
	messages []*message
	offsets  []int64
	whole    []int64 // the latest settling of messages[0..i]
	last     []int   // who it was
}

// ahead finds a message below offset that was not settled before a time.
func (h *history) ahead(offset, at int64) *message {
	n := sort.Search(len(h.offsets), func(i int) bool { return h.offsets[i] >= offset })
	if n == 0 || h.whole[n-1] < at {
		return nil
	}
	return h.messages[h.last[n-1]]
}

// histories leaves out what no consumer can be handed.
func (c *run) histories() map[place]*history {
	all := map[place]*history{}
	for _, m := range c.order {
		for _, p := range m.places {
			if c.gapAt(p.source, p.partition, p.offset) != "" {
				continue
			}
			log := place{p.source, p.partition, p.life, 0}
			if all[log] == nil {
				all[log] = &history{}
			}
			all[log].messages = append(all[log].messages, m)
			all[log].offsets = append(all[log].offsets, p.offset)
		}
	}
	for _, h := range all {
		sort.Sort(h)
		for i, m := range h.messages {
			h.whole, h.last = append(h.whole, m.settled), append(h.last, i)
			if i > 0 && h.whole[i-1] >= m.settled {
				h.whole[i], h.last[i] = h.whole[i-1], h.last[i-1]
			}
		}
	}
	return all
}

// Len, Less and Swap sort a history by offset.
func (h *history) Len() int           { return len(h.offsets) }
func (h *history) Less(i, j int) bool { return h.offsets[i] < h.offsets[j] }
func (h *history) Swap(i, j int) {
	h.offsets[i], h.offsets[j] = h.offsets[j], h.offsets[i]
	h.messages[i], h.messages[j] = h.messages[j], h.messages[i]
}

// checkCommits compares every commit on the wire, and every sample, with what was settled by then.
func (c *run) checkCommits() {
	histories := c.histories()
	for _, e := range c.Wire {
		topic := c.topic(e)
		if e.Kind != wire.Commit || !c.own(topic) || c.Rules.Group != "" && e.Group != c.Rules.Group {
			continue
		}
		c.result.Commits++
		h := histories[place{topic, e.Partition, c.life(e.At), 0}]
		if h == nil {
			continue
		}
		if m := h.ahead(e.Offset, e.At); m != nil {
			c.result.add(CommitAhead, "%s/%d to %d by %s in generation %d, before %s", topic, e.Partition, e.Offset, e.Member, e.Generation, m.id)
		}
		h.release(e.Offset, e.At)
	}
	c.checkSamples(histories)
	c.checkRegress()
}

// release notes that everything below offset was given up by the consumer, at the latest now.
func (h *history) release(offset, at int64) {
	n := sort.Search(len(h.offsets), func(i int) bool { return h.offsets[i] >= offset })
	for i := n - 1; i >= 0 && h.messages[i].released == never; i-- {
		h.messages[i].released = at
	}
}

// checkSamples knows less: what a sample tells was so for a while already.
func (c *run) checkSamples(histories map[place]*history) {
	for _, s := range c.Offsets {
		if h := histories[place{s.Source, s.Partition, c.life(s.At), 0}]; h != nil && c.own(s.Source) {
			if m := h.ahead(s.Committed, s.At); m != nil {
				c.result.add(SamplesAhead, "%s/%d at %d, before %s", s.Source, s.Partition, s.Committed, m.id)
			}
		}
	}
}

// exchange names a request and its answer.
type exchange struct {
	conn        int64
	correlation int32
	log         place
}

// checkRegress compares accepted commits with those that had been accepted before they were sent: only then is the order certain.
func (c *run) checkRegress() {
	accepted, floors := map[place]int64{}, map[exchange]int64{}
	resets := slices.Sorted(slices.Values(slices.Concat(c.Rules.Recreated, c.Rules.Rewound)))
	for _, e := range c.Wire {
		for len(resets) > 0 && resets[0] <= e.At {
			resets = resets[1:]
			clear(accepted)
			clear(floors)
		}
		log := place{source: c.topic(e), partition: e.Partition}
		id := exchange{e.Conn, e.Correlation, log}
		if !c.own(log.source) || c.Rules.Group != "" && e.Group != c.Rules.Group {
			continue
		}
		switch {
		case e.Kind == wire.Commit:
			floors[id] = accepted[log]
		case e.Kind == wire.CommitAnswer && e.Code == 0:
			if floor, known := floors[id]; known && e.Offset < floor {
				c.result.add(CommitRegress, "%s/%d to %d after %d, by %s in generation %d", log.source, log.partition, e.Offset, floor, e.Member, e.Generation)
			}
			accepted[log] = max(accepted[log], e.Offset)
		}
	}
}

// checkSaved compares when each dead letter was confirmed with when its message was given up. What also succeeded needs no dead letter.
func (c *run) checkSaved() {
	for _, m := range c.order {
		if m.dead && m.released <= m.saved && !m.sunk {
			c.result.add(SettledUnsaved, "%s", m.id)
		}
	}
}

// countSkipped finds messages below the last committed offset that nobody has.
func (c *run) countSkipped() {
	final := map[place]int64{}
	for _, s := range c.Offsets {
		final[place{source: s.Source, partition: s.Partition}] = s.Committed
	}
	lives := len(c.Rules.Recreated)
	for _, m := range c.order {
		hidden := m.gap == ledger.Marker || m.gap == ledger.Aborted || m.gap == ledger.Compacted
		if m.sunk || m.dead || hidden {
			continue
		}
		for _, p := range m.places {
			if p.life == lives && p.offset < final[place{source: p.source, partition: p.partition}] {
				c.result.add(Skipped, "%s at %s/%d/%d", m.id, p.source, p.partition, p.offset)
			}
		}
	}
	if n := c.result.Counts[Skipped]; int64(n) != c.Rules.Skipped {
		c.result.add(SkipUntold, "%d offsets were passed over, the framework told of %d", n, c.Rules.Skipped)
		c.result.Counts[SkipUntold] = cmp.Or(max(n-int(c.Rules.Skipped), int(c.Rules.Skipped)-n), 1)
	}
}
