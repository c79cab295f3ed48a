package check

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// defaultSlack is a session time-out of 6 s, and 5 s.
const defaultSlack = 11 * time.Second

// never is when what has not happened happens.
const never = int64(math.MaxInt64)

// Check counts everything that reliability can be judged by, after the formulas of Jepsen's total-queue checker (lost, unexpected, recovered)
// and, for what crossed the wire: nothing is committed or acknowledged before the sink, or a confirmed dead letter, has it.
func Check(e Evidence) Result {
	c := newRun(e)
	c.collectProduced()
	c.collectGaps()
	c.collectSink()
	c.collectDead()
	c.countIDs()
	c.countRepeats()
	c.countOrder()
	c.countStale()
	c.checkCommits()
	c.checkAcks()
	c.checkSaved()
	c.countSkipped()
	c.checkEnd()
	c.countRecovery()
	return c.result
}

// run is one call of Check. Its slices are sorted by time.
type run struct {
	Evidence
	result   Result
	messages map[string]*message
	order    []*message // as they were first produced
	faults   []ledger.Fault
	gaps     map[place][]ledger.Gap // by source and partition, in order
}

// message is what is known of one id.
type message struct {
	id, sum  string
	state    ledger.State
	sends    int // how often the producer tried
	places   []place
	seen     int  // successes
	sunk     bool // a success, or dropped on purpose
	dead     bool // among the dead letters
	left     bool // still in the source
	gap      ledger.Why
	settled  int64 // when the first of sink and confirmed dead letter had it, or never
	saved    int64 // when its dead letter was confirmed; never; 0 when that cannot be known
	released int64 // when it was first acknowledged or committed, or never
}

// place is where a message lies in a log. Life counts how often the topic was made again.
type place struct {
	source    string
	partition int32
	life      int
	offset    int64
}

func newRun(e Evidence) *run {
	e.Rules.Slack = cmp.Or(e.Rules.Slack, defaultSlack)
	c := &run{
		Evidence: e,
		result:   Result{Counts: map[Counter]int{}, First: map[Counter][]string{}, Torn: e.Torn},
		messages: make(map[string]*message, len(e.Produced)/2),
		gaps:     map[place][]ledger.Gap{},
	}
	c.Produced = byTime(e.Produced, func(p ledger.Produced) int64 { return p.At })
	c.Wire = byTime(e.Wire, func(w wire.Event) int64 { return w.At })
	c.Offsets = byTime(e.Offsets, func(s ledger.Sample) int64 { return s.At })
	c.Sink = slices.Clone(e.Sink)
	slices.SortStableFunc(c.Sink, func(a, b ledger.Observation) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Seq, b.Seq))
	})
	c.faults = lastLines(e.Faults)
	return c
}

func byTime[T any](entries []T, at func(T) int64) []T {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b T) int { return cmp.Compare(at(a), at(b)) })
	return sorted
}

// lastLines keeps the last line of each fault that has a number.
func lastLines(faults []ledger.Fault) (last []ledger.Fault) {
	at := map[int]int{}
	for _, f := range faults {
		if i, known := at[f.Number]; known && f.Number != 0 {
			if f.Until != 0 {
				last[i] = f
			}
			continue
		}
		at[f.Number] = len(last)
		last = append(last, f)
	}
	slices.SortStableFunc(last, func(a, b ledger.Fault) int { return cmp.Compare(a.From, b.From) })
	return last
}

// collectProduced finds out what became of each id. An id that was sent twice is acked if either was.
func (c *run) collectProduced() {
	rank := map[ledger.State]int{ledger.Failed: 1, ledger.Unknown: 2, ledger.Acked: 3}
	for _, p := range c.Produced {
		m := c.messages[p.ID]
		if m == nil {
			m = &message{id: p.ID, sum: p.Sum, settled: never, saved: never, released: never}
			c.messages[p.ID] = m
			c.order = append(c.order, m)
		}
		if p.State == ledger.Attempted {
			m.sends++
			continue
		}
		if rank[p.State] > rank[m.state] {
			m.state = p.State
		}
		if p.State == ledger.Acked {
			m.places = append(m.places, place{p.Source, p.Partition, c.life(p.At), p.Offset})
		}
	}
	for _, m := range c.order {
		m.state = cmp.Or(m.state, ledger.Unknown)
		switch m.state {
		case ledger.Acked:
			c.result.Acked++
		case ledger.Unknown:
			c.result.Unknown++
		}
	}
}

// life counts how often the topic had been made again at a time.
func (c *run) life(at int64) int {
	n := 0
	for _, t := range c.Rules.Recreated {
		if t <= at {
			n++
		}
	}
	return n
}

// collectGaps marks ids that no consumer can be handed.
func (c *run) collectGaps() {
	for _, g := range c.Gaps {
		at := place{source: g.Source, partition: g.Partition}
		c.gaps[at] = append(c.gaps[at], g)
	}
	for _, gaps := range c.gaps {
		slices.SortFunc(gaps, func(a, b ledger.Gap) int { return cmp.Compare(a.First, b.First) })
	}
	for _, m := range c.order {
		for _, p := range m.places {
			if why := c.gapAt(p.source, p.partition, p.offset); why != "" {
				m.gap = why
			}
		}
	}
}

// gapAt finds the gap that an offset is in. Gaps of a partition do not overlap.
func (c *run) gapAt(source string, partition int32, offset int64) ledger.Why {
	gaps := c.gaps[place{source: source, partition: partition}]
	at := sort.Search(len(gaps), func(i int) bool { return gaps[i].Next > offset })
	if at < len(gaps) && gaps[at].First <= offset {
		return gaps[at].Why
	}
	return ""
}

// collectSink notes when each id was settled by a consumer. An id whose ack the producer never saw has its place from here.
func (c *run) collectSink() {
	for _, o := range c.Sink {
		m := c.messages[o.ID]
		if m == nil || o.Stage != ledger.Success && o.Stage != ledger.Dropped {
			continue
		}
		m.sunk, m.settled = true, min(m.settled, o.At)
		if o.Stage == ledger.Success {
			m.seen++
		}
		if m.state != ledger.Acked {
			at := place{o.Source, o.Partition, c.life(o.At), o.Offset}
			if !slices.Contains(m.places, at) {
				m.places = append(m.places, at)
			}
		}
	}
	for _, d := range c.Residual {
		if m := c.messages[d.ID]; m != nil {
			m.left = true
		}
	}
}

// own says whether a topic or queue is one of those under test.
func (c *run) own(source string) bool {
	if c.Rules.Source == "" {
		return true
	}
	for name := range strings.SplitSeq(c.Rules.Source, ",") {
		if name == source {
			return true
		}
	}
	return false
}
