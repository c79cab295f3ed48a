package check

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// drawEvidence makes any evidence over a few ids, so that all of it collides.
func drawEvidence(t *rapid.T) Evidence {
	var e Evidence
	number := func(most int64, what string) int64 { return rapid.Int64Range(0, most).Draw(t, what) }
	for o := range number(5, "produced") {
		p := acked(o)
		p[1].Partition = int32(o % 2)
		p[1].State = rapid.SampledFrom([]ledger.State{ledger.Acked, ledger.Acked, ledger.Unknown, ledger.Failed}).Draw(t, "state")
		e.Produced = append(e.Produced, p...)
	}
	for i := range number(8, "seen") {
		o := saw(number(5, "offset"), 10+number(40, "at"))
		o.Partition, o.Seq, o.PID = int32(o.Offset%2), i, 1
		o.Stage = rapid.SampledFrom([]ledger.Stage{ledger.Success, ledger.Success, ledger.Dropped, ledger.Seen}).Draw(t, "stage")
		o.Sum = rapid.SampledFrom([]string{o.Sum, o.Sum, o.Sum, "x"}).Draw(t, "sum")
		e.Sink = append(e.Sink, o)
	}
	for range number(2, "dead") {
		e.Dead = append(e.Dead, drained("dead", number(5, "dead")))
	}
	for range number(2, "left") {
		e.Residual = append(e.Residual, drained("t", number(5, "left")))
	}
	for i := range number(4, "commits") {
		at := 10 + number(40, "at")
		pair := answered(number(6, "to"), at, at+number(5, "later"), int(number(1, "code")))
		for j := range pair {
			pair[j].Partition, pair[j].Correlation = int32(i%2), int32(i)
		}
		e.Wire = append(e.Wire, pair...)
	}
	for n := range number(4, "delivered") {
		d := deliver(uint64(n+1), 10+number(40, "at"))
		d.ID = fmt.Sprintf("m%d", number(5, "id"))
		e.Wire = append(e.Wire, d)
	}
	for range number(4, "acks") {
		a := amqp(wire.Ack, uint64(number(5, "tag")), 10+number(40, "at"))
		a.Multiple = rapid.Bool().Draw(t, "multiple")
		e.Wire = append(e.Wire, a)
	}
	for range number(2, "faults") {
		from := number(50, "from")
		e.Faults = append(e.Faults, ledger.Fault{From: from, Until: from + number(3, "length")})
	}
	e.Rules = Rules{Ordered: true, Slack: 5, Backlog: rapid.Bool().Draw(t, "backlog"), Duplicates: 100, Doubles: 100, Residual: true}
	return e
}

// naive counts by the formulas as they are written, one quantifier one loop.
func naive(e Evidence) map[Counter]int {
	e = newRun(e).Evidence // sorted by time
	n := map[Counter]int{}
	naiveIDs(e, n)
	naiveRepeats(e, n)
	naiveCommits(e, n)
	naiveAcks(e, n)
	return n
}

func settledBefore(e Evidence, id string, at int64) bool {
	for _, d := range e.Dead {
		if d.ID == id {
			return true // when is not known here: nothing was published on the wire
		}
	}
	for _, o := range e.Sink {
		if o.ID == id && o.At < at && (o.Stage == ledger.Success || o.Stage == ledger.Dropped) {
			return true
		}
	}
	return false
}

func naiveIDs(e Evidence, n map[Counter]int) {
	sent := map[string]bool{}
	for _, p := range e.Produced {
		sent[p.ID] = true
		dead, left, success := false, false, false
		for _, d := range e.Dead {
			dead = dead || d.ID == p.ID
		}
		for _, d := range e.Residual {
			left = left || d.ID == p.ID
		}
		for _, o := range e.Sink {
			success = success || o.ID == p.ID && o.Stage == ledger.Success
		}
		found := settledBefore(e, p.ID, never)
		switch {
		case p.State == ledger.Acked && !found && !left:
			n[Lost]++
		case p.State == ledger.Unknown && found:
			n[Recovered]++
		}
		if p.State != ledger.Attempted && success && dead {
			n[Double]++
		}
	}
	content := func(id, sum string) {
		if !sent[id] {
			n[Phantom]++
		} else if sum != "h"+id[1:] {
			n[Corrupt]++
		}
	}
	for _, o := range e.Sink {
		if o.Stage == ledger.Success {
			content(o.ID, o.Sum)
		}
	}
	for _, d := range e.Dead {
		content(d.ID, d.Sum)
	}
}

func naiveRepeats(e Evidence, n map[Counter]int) {
	for i, o := range e.Sink {
		if o.Stage != ledger.Success {
			continue
		}
		repeat, behind, latest := false, false, o.At
		for _, earlier := range e.Sink[:i] {
			if earlier.Stage == ledger.Success && earlier.Partition == o.Partition {
				if earlier.ID == o.ID {
					repeat = true
					if e.Rules.Backlog {
						latest = earlier.At
					}
				}
				behind = behind || earlier.KeySeq > o.KeySeq
			}
		}
		if behind && !repeat {
			n[Inversions]++
		}
		if !repeat {
			continue
		}
		n[Duplicates]++
		n[Rewinds]++
		explained := false
		for _, f := range e.Faults {
			explained = explained || f.From <= o.At && (f.Until == 0 || latest <= f.Until+5)
		}
		if explained {
			n[DupAfter]++
		} else {
			n[DupUnexplained]++
		}
	}
}

// required says whether a message is known to lie at its offset: the producer was told, or a consumer saw it.
func required(e Evidence, p ledger.Produced) bool {
	if p.State == ledger.Acked {
		return true
	}
	return p.State != ledger.Attempted && settledBefore(Evidence{Sink: e.Sink}, p.ID, never)
}

func naiveCommits(e Evidence, n map[Counter]int) {
	for i, c := range e.Wire {
		if c.Kind == wire.Commit {
			ahead := false
			for _, p := range e.Produced {
				ahead = ahead || required(e, p) && p.Partition == c.Partition && p.Offset < c.Offset && !settledBefore(e, p.ID, c.At)
			}
			if ahead {
				n[CommitAhead]++
			}
		}
		if c.Kind == wire.CommitAnswer && c.Code == 0 {
			request := 0
			for j, q := range e.Wire {
				if q.Kind == wire.Commit && q.Correlation == c.Correlation {
					request = j
				}
			}
			for _, a := range e.Wire[:request] {
				if a.Kind == wire.CommitAnswer && a.Code == 0 && a.Partition == c.Partition && a.Offset > c.Offset && request < i {
					n[CommitRegress]++
					break
				}
			}
		}
	}
}

func naiveAcks(e Evidence, n map[Counter]int) {
	sent := map[string]bool{}
	for _, p := range e.Produced {
		sent[p.ID] = true
	}
	open := map[uint64]string{}
	for _, a := range e.Wire {
		if a.Kind == wire.Deliver {
			open[a.Tag] = a.ID
		}
		if a.Kind != wire.Ack {
			continue
		}
		if _, known := open[a.Tag]; !known && (a.Tag != 0 || !a.Multiple) {
			n[StaleAck]++
		}
		for tag, id := range open {
			if tag == a.Tag || a.Multiple && (tag <= a.Tag || a.Tag == 0) {
				delete(open, tag)
				if sent[id] && !settledBefore(e, id, a.At) {
					n[AckAhead]++
				}
			}
		}
	}
}

func TestAnyEvidenceIsCountedAsTheFormulasSay(t *testing.T) {
	compared := []Counter{
		Lost, Phantom, Corrupt, Recovered, Double, Duplicates, DupAfter, DupUnexplained, Inversions, Rewinds, CommitAhead, CommitRegress, AckAhead, StaleAck,
	}
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvidence(t)
		got, want := Check(e), naive(e)
		for _, c := range compared {
			if got.Counts[c] != want[c] {
				t.Fatalf("%s: %d, want %d\n%+v", c, got.Counts[c], want[c], e)
			}
		}
	})
}
