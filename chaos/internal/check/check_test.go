package check

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// at are helpers for evidence of partition 0 of topic t: id "m<offset>" of key "k" was acked at 1, and its hash is "h<offset>".
func acked(offsets ...int64) (produced []ledger.Produced) {
	for _, o := range offsets {
		p := ledger.Produced{ID: fmt.Sprintf("m%d", o), Key: "k", KeySeq: o, Sum: fmt.Sprintf("h%d", o), Source: "t", Offset: o, State: ledger.Attempted}
		produced = append(produced, p)
		p.State, p.At = ledger.Acked, 1
		produced = append(produced, p)
	}
	return produced
}

// saw is a success at a time.
func saw(offset, at int64) ledger.Observation {
	return ledger.Observation{
		ID: fmt.Sprintf("m%d", offset), Key: "k", KeySeq: offset, Sum: fmt.Sprintf("h%d", offset), Source: "t", Offset: offset,
		Stage: ledger.Success, At: at,
	}
}

// got is a success of a delivery from a queue.
func got(n, at int64, redelivered bool) ledger.Observation {
	o := saw(n, at)
	o.Offset, o.Tag, o.Redelivered = 0, uint64(n), redelivered
	return o
}

func drained(source string, n int64) ledger.Drained {
	return ledger.Drained{ID: fmt.Sprintf("m%d", n), Sum: fmt.Sprintf("h%d", n), Source: source, Offset: n}
}

func commit(offset, at int64) wire.Event {
	return wire.Event{Kind: wire.Commit, At: at, Correlation: int32(at), Group: "g", Topic: "t", Offset: offset}
}

// answered is a commit that the broker accepts, or refuses, at a later time.
func answered(offset, at, answer int64, code int) []wire.Event {
	request := commit(offset, at)
	reply := request
	reply.Kind, reply.At, reply.Code = wire.CommitAnswer, answer, code
	return []wire.Event{request, reply}
}

// amqp is an event on the first instance of channel 1.
func amqp(kind wire.Kind, tag uint64, at int64) wire.Event {
	return wire.Event{Kind: kind, Tag: tag, At: at, Conn: 1, Channel: 1, Session: 1}
}

func deliver(n uint64, at int64) wire.Event {
	e := amqp(wire.Deliver, n, at)
	e.ID, e.Queue = fmt.Sprintf("m%d", n), "t"
	return e
}

func changed[T any](v T, change func(*T)) T {
	change(&v)
	return v
}

// Each row is one thing that a consumer did wrong, or that looks like it, and all that is counted then.
func TestEachFormula(t *testing.T) {
	second := int64(time.Second)
	for _, row := range []struct {
		name string
		e    Evidence
		want map[Counter]int
	}{
		{"nothing wrong", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), saw(1, 20)}, Wire: answered(2, 30, 31, 0),
			Offsets: []ledger.Sample{{Source: "t", Committed: 2, At: 40}},
		}, nil},
		{"lost", Evidence{Produced: acked(0, 1), Sink: []ledger.Observation{saw(1, 10)}}, map[Counter]int{Lost: 1}},
		{"seen, but without success", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{changed(saw(0, 10), func(o *ledger.Observation) { o.Stage = ledger.Seen })},
		}, map[Counter]int{Lost: 1}},
		{"dropped on purpose", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{changed(saw(0, 10), func(o *ledger.Observation) { o.Stage = ledger.Dropped })},
			Wire: answered(1, 11, 12, 0),
		}, nil},
		{"left in the source, which must be empty", Evidence{Produced: acked(0), Residual: []ledger.Drained{drained("t", 0)}}, map[Counter]int{EndState: 1}},
		{"left in the source, which may be", Evidence{
			Produced: acked(0), Residual: []ledger.Drained{drained("t", 0)}, End: End{Lag: 1}, Rules: Rules{Residual: true},
		}, nil},
		{"deleted before it was seen, and told", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(1, 10)}, Gaps: []ledger.Gap{{Source: "t", First: 0, Next: 1, Why: ledger.Deleted}},
			Wire: answered(2, 20, 21, 0), Offsets: []ledger.Sample{{Source: "t", Committed: 2, At: 30}}, Rules: Rules{Skipped: 1},
		}, map[Counter]int{Removed: 1, Skipped: 1}},
		{"deleted before it was seen, and not told", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(1, 10)}, Gaps: []ledger.Gap{{Source: "t", First: 0, Next: 1, Why: ledger.Deleted}},
			Offsets: []ledger.Sample{{Source: "t", Committed: 2, At: 30}},
		}, map[Counter]int{Removed: 1, Skipped: 1, SkipUntold: 1}},
		{"compacted before it was seen", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(1, 10)}, Gaps: []ledger.Gap{{Source: "t", First: 0, Next: 1, Why: ledger.Compacted}},
			Offsets: []ledger.Sample{{Source: "t", Committed: 2, At: 30}},
		}, map[Counter]int{Removed: 1}},
		{"never sent", Evidence{Sink: []ledger.Observation{saw(7, 10)}, Dead: []ledger.Drained{drained("dead", 8)}}, map[Counter]int{Phantom: 2}},
		{"unknown to the producer, and seen", Evidence{
			Produced: acked(0)[:1], Sink: []ledger.Observation{saw(0, 10)},
		}, map[Counter]int{Recovered: 1}},
		{"refused by the broker, and not seen", Evidence{Produced: []ledger.Produced{{ID: "m0", State: ledger.Failed}}}, nil},
		{"another content", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), changed(saw(1, 11), func(o *ledger.Observation) { o.Sum = "x" })},
		}, map[Counter]int{Corrupt: 1}},
		{"an aborted message where only committed ones may be seen", Evidence{
			Produced: []ledger.Produced{{ID: "m0", Sum: "h0", State: ledger.Failed}}, Sink: []ledger.Observation{saw(0, 10)},
			Gaps: []ledger.Gap{{Source: "t", First: 0, Next: 1, Why: ledger.Aborted}}, Rules: Rules{Committed: true},
		}, map[Counter]int{AbortedSeen: 1}},
		{"repeats without a fault", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10), saw(0, 20), saw(0, 30)},
		}, map[Counter]int{Duplicates: 2, DupUnexplained: 2, Rewinds: 2}},
		{"a repeat after a fault, within the rule", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10), saw(0, 20)}, Rules: Rules{Duplicates: 1},
			Faults: []ledger.Fault{{Kind: "kill", From: 15, Until: 16}},
		}, map[Counter]int{Duplicates: 1, DupAfter: 1, Rewinds: 1}},
		{"a repeat after a fault, above the rule", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10), saw(0, 20)}, Faults: []ledger.Fault{{Kind: "kill", From: 15, Until: 16}},
		}, map[Counter]int{Duplicates: 1, DupAfter: 1, OverDuplicates: 1, Rewinds: 1}},
		{"repeats long after a fault, before one, of another partition, after a clean stop", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10), saw(0, 20*second)},
			Faults: []ledger.Fault{
				{From: 15, Until: 16}, {From: 21 * second}, {From: 15, Partitions: []int32{1}}, {From: 15, Source: "other"}, {From: 15, Clean: true},
			},
		}, map[Counter]int{Duplicates: 1, DupUnexplained: 1, Rewinds: 1}},
		{"a repeat that a backlog has kept since a fault, and one of a message that was handled long after it", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), saw(1, 12*second), saw(0, 20*second), saw(1, 20*second)},
			Faults: []ledger.Fault{{From: 15, Until: 16}}, Rules: Rules{Duplicates: 1, Backlog: true},
		}, map[Counter]int{Duplicates: 2, DupAfter: 1, DupUnexplained: 1, Rewinds: 2}},
		{"a backlog does not explain a repeat before a fault", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10), saw(0, 20)}, Faults: []ledger.Fault{{From: 21}}, Rules: Rules{Backlog: true},
		}, map[Counter]int{Duplicates: 1, DupUnexplained: 1, Rewinds: 1}},
		{"the last line of a fault counts", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10), saw(0, 20*second)}, Rules: Rules{Duplicates: 1},
			Faults: []ledger.Fault{{Number: 1, From: 15}, {Number: 1, From: 15, Until: 16}},
		}, map[Counter]int{Duplicates: 1, DupUnexplained: 1, Rewinds: 1}},
		{"the producer sent it twice", Evidence{
			Produced: append(acked(0), changed(acked(0)[1], func(p *ledger.Produced) { p.Offset = 5 })),
			Sink:     []ledger.Observation{saw(0, 10), changed(saw(0, 20), func(o *ledger.Observation) { o.Offset = 5 })},
		}, map[Counter]int{DupProducer: 1, Rewinds: 1}},
		{"the producer sent it twice to a queue, and it came three times", Evidence{
			Produced: append(acked(1), acked(1)...), Sink: []ledger.Observation{got(1, 10, false), got(1, 20, false), got(1, 30, true)},
		}, map[Counter]int{DupProducer: 1, Duplicates: 1, DupUnexplained: 1, Rewinds: 2}},
		{"a repeat that is not marked", Evidence{
			Produced: acked(1), Sink: []ledger.Observation{got(1, 10, false), got(1, 20, false)}, Faults: []ledger.Fault{{From: 15}}, Rules: Rules{Duplicates: 1},
		}, map[Counter]int{Duplicates: 1, DupAfter: 1, DupUnmarked: 1, Rewinds: 1}},
		{"succeeded and dead-lettered", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10)}, Dead: []ledger.Drained{drained("dead", 0)},
		}, map[Counter]int{Double: 1, OverDoubles: 1, DeadUntimed: 1}},
		{"out of order", Evidence{
			Produced: acked(0, 1, 2), Sink: []ledger.Observation{saw(0, 10), saw(2, 20), saw(1, 30)}, Rules: Rules{Ordered: true},
		}, map[Counter]int{Inversions: 1}},
		{"a key that changed its partition", Evidence{
			Produced: acked(0, 1, 2), Sink: []ledger.Observation{saw(0, 10), saw(2, 20), changed(saw(1, 30), func(o *ledger.Observation) { o.Partition = 1 })},
			Rules: Rules{Ordered: true},
		}, nil},
		{"in order again after a fault", Evidence{
			Produced: acked(0, 1, 2), Sink: []ledger.Observation{saw(0, 10), saw(1, 20), saw(0, 30), saw(1, 40), saw(2, 50)}, Rules: Rules{Ordered: true, Duplicates: 2},
			Faults: []ledger.Fault{{From: 25}},
		}, map[Counter]int{Duplicates: 2, DupAfter: 2, Rewinds: 2}},
		{"a write by an overtaken generation", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{
				changed(saw(0, 10), func(o *ledger.Observation) { o.Generation = 3 }), changed(saw(1, 20), func(o *ledger.Observation) { o.Generation = 2 }),
			},
		}, map[Counter]int{StaleWrites: 1, OverStale: 1}},
		{"committed before the sink", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), saw(1, 30)}, Wire: answered(2, 20, 21, 0),
		}, map[Counter]int{CommitAhead: 1}},
		{"committed at the same time", Evidence{Produced: acked(0), Sink: []ledger.Observation{saw(0, 20)}, Wire: answered(1, 20, 21, 0)}, map[Counter]int{CommitAhead: 1}},
		{"committed over a hole", Evidence{
			Produced: acked(0, 1, 2), Sink: []ledger.Observation{saw(0, 10), saw(2, 11), saw(1, 40)}, Wire: answered(3, 20, 21, 22),
		}, map[Counter]int{CommitAhead: 1}},
		{"another group, another topic", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10)}, Rules: Rules{Group: "g", Source: "t"},
			Wire: []wire.Event{
				changed(commit(1, 5), func(e *wire.Event) { e.Group = "h" }), changed(commit(1, 5), func(e *wire.Event) { e.Topic = "u" }),
			},
		}, nil},
		{"a topic by its id", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10)}, Rules: Rules{TopicIDs: map[string]string{"ab": "t"}},
			Wire: []wire.Event{changed(commit(1, 5), func(e *wire.Event) { e.Topic, e.TopicID = "", "ab" })},
		}, map[Counter]int{CommitAhead: 1}},
		{"a sample before the sink", Evidence{
			Produced: acked(0), Sink: []ledger.Observation{saw(0, 10)}, Offsets: []ledger.Sample{{Source: "t", Committed: 1, At: 5}},
		}, map[Counter]int{SamplesAhead: 1}},
		{"a lower commit was accepted", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), saw(1, 11)}, Wire: append(answered(2, 20, 21, 0), answered(1, 22, 23, 0)...),
		}, map[Counter]int{CommitRegress: 1}},
		{"a lower commit was refused, or sent before the higher one was accepted", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), saw(1, 11)},
			Wire: slices.Concat(answered(2, 20, 25, 0), answered(1, 22, 23, 0), answered(1, 30, 31, 22)),
		}, nil},
		{"a topic that was made again", Evidence{
			Produced: append(acked(0, 1), ledger.Produced{ID: "n", Source: "t", State: ledger.Acked, At: 50}),
			Sink:     []ledger.Observation{saw(0, 10), saw(1, 11), {ID: "n", Source: "t", Stage: ledger.Success, At: 60}},
			Wire:     append(answered(2, 20, 21, 0), answered(1, 70, 71, 0)...), Rules: Rules{Recreated: []int64{40}},
		}, nil},
		{"a commit carried over to a topic that was made again", Evidence{
			Produced: append(acked(0, 1), ledger.Produced{ID: "n", Source: "t", State: ledger.Acked, At: 50}),
			Sink:     []ledger.Observation{saw(0, 10), saw(1, 11), {ID: "n", Source: "t", Stage: ledger.Success, At: 60}},
			Wire:     answered(2, 55, 56, 0), Rules: Rules{Recreated: []int64{40}},
		}, map[Counter]int{CommitAhead: 1}},
		{"committed offsets that were removed", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), saw(1, 11)}, Rules: Rules{Rewound: []int64{22}},
			Wire: append(answered(2, 20, 21, 0), answered(1, 23, 24, 0)...),
		}, nil},
		{"skipped", Evidence{
			Produced: acked(0, 1), Sink: []ledger.Observation{saw(1, 10)}, Offsets: []ledger.Sample{{Source: "t", Committed: 0, At: 5}, {Source: "t", Committed: 2, At: 30}},
		}, map[Counter]int{Lost: 1, Skipped: 1, SkipUntold: 1, SamplesAhead: 1}},
		{"told of a skip that was none", Evidence{Rules: Rules{Skipped: 3}}, map[Counter]int{SkipUntold: 3}},
		{"acked before the sink", Evidence{
			Produced: acked(1, 2), Sink: []ledger.Observation{got(1, 10, false), got(2, 30, false)},
			Wire: []wire.Event{deliver(1, 5), deliver(2, 6), changed(amqp(wire.Ack, 2, 20), func(e *wire.Event) { e.Multiple = true })},
		}, map[Counter]int{AckAhead: 1}},
		{"acked as a whole", Evidence{
			Produced: acked(1, 2), Sink: []ledger.Observation{got(1, 10, false), got(2, 11, false)},
			Wire: []wire.Event{deliver(1, 5), deliver(2, 6), changed(amqp(wire.Ack, 0, 20), func(e *wire.Event) { e.Multiple = true })},
		}, nil},
		{"acked by coming", Evidence{
			Produced: acked(1), Sink: []ledger.Observation{got(1, 10, false)},
			Wire: []wire.Event{changed(deliver(1, 5), func(e *wire.Event) { e.NoAck = true })},
		}, map[Counter]int{AckAhead: 1}},
		{"acked twice", Evidence{
			Produced: acked(1), Sink: []ledger.Observation{got(1, 10, false)}, Wire: []wire.Event{deliver(1, 5), amqp(wire.Ack, 1, 20), amqp(wire.Ack, 1, 21)},
		}, map[Counter]int{StaleAck: 1}},
		{"acked on another instance of the channel", Evidence{
			Produced: acked(1), Sink: []ledger.Observation{got(1, 10, false)},
			Wire: []wire.Event{deliver(1, 5), changed(amqp(wire.Ack, 1, 20), func(e *wire.Event) { e.Session = 2 })},
		}, map[Counter]int{StaleAck: 1}},
		{"given back, and acked when it came again", Evidence{
			Produced: acked(1), Sink: []ledger.Observation{got(1, 30, true)},
			Wire: []wire.Event{
				deliver(1, 5), changed(amqp(wire.Nack, 1, 6), func(e *wire.Event) { e.Requeue = true }),
				changed(deliver(2, 7), func(e *wire.Event) { e.ID = "m1" }), amqp(wire.Ack, 2, 40),
			},
		}, nil},
		{"thrown away", Evidence{
			Produced: acked(1), Wire: []wire.Event{deliver(1, 5), amqp(wire.Reject, 1, 6)},
		}, map[Counter]int{Lost: 1, AckAhead: 1}},
		{"handed to the broker's dead letters", Evidence{
			Produced: acked(1), Wire: []wire.Event{deliver(1, 5), amqp(wire.Reject, 1, 6)}, Dead: []ledger.Drained{drained("dead", 1)}, Rules: Rules{RejectDrops: true},
		}, map[Counter]int{DeadUntimed: 1}},
		{"another queue", Evidence{
			Rules: Rules{Source: "u"}, Wire: []wire.Event{deliver(1, 5)},
		}, nil},
		{"bytes that could not be read", Evidence{Wire: []wire.Event{{Kind: wire.Undecodable}}}, map[Counter]int{Undecoded: 1}},
		{"bytes that were spoilt", Evidence{Wire: []wire.Event{{Kind: wire.Undecodable}}, Rules: Rules{Undecodable: true}}, nil},
		{"an end with something left", Evidence{End: End{Unacked: 1, GroupState: "PreparingRebalance", Metrics: &Metrics{Received: 2, Succeeded: 1}}}, map[Counter]int{EndState: 3}},
		{"an end that adds up", Evidence{End: End{GroupState: "Empty", Metrics: &Metrics{Received: 2, Succeeded: 1, Abandoned: 1}}}, nil},
	} {
		r := Check(row.e)
		maps.DeleteFunc(r.Counts, func(_ Counter, n int) bool { return n == 0 })
		if !maps.Equal(r.Counts, row.want) {
			t.Errorf("%s: %v, want %v; %v", row.name, r.Counts, row.want, r.Reasons())
		}
		if n := 0; slices.ContainsFunc(Musts(), func(c Counter) bool { n += row.want[c]; return n > 0 }) == r.Pass() {
			t.Errorf("%s: passed is %v, with %v", row.name, r.Pass(), r.Counts)
		}
	}
}

// A dead letter must be confirmed before its message is given up.
func TestDeadLettersBeforeSettling(t *testing.T) {
	produce := func(at int64, code int) wire.Event {
		return wire.Event{Kind: wire.ProduceAnswer, At: at, Topic: "dead", Offset: 0, Count: 2, Code: code}
	}
	publish := func(id string) wire.Event {
		return wire.Event{Kind: wire.Publish, At: 10, Conn: 2, Channel: 1, Session: 1, Tag: 1, ID: id, RoutingKey: "dead"}
	}
	confirm := func(at int64) wire.Event {
		return wire.Event{Kind: wire.Confirm, At: at, Conn: 2, Channel: 1, Session: 1, Tag: 1}
	}
	for _, row := range []struct {
		name string
		wire []wire.Event
		want map[Counter]int
	}{
		{"Kafka", append(answered(2, 30, 31, 0), produce(20, 0)), nil},
		{"Kafka, too late", append(answered(2, 30, 31, 0), produce(40, 0)), map[Counter]int{CommitAhead: 1, SettledUnsaved: 1}},
		{"Kafka, refused", append(answered(2, 30, 31, 0), wire.Event{Kind: wire.Produce, Topic: "dead"}, produce(20, 7)), map[Counter]int{CommitAhead: 1, SettledUnsaved: 1}},
		{"RabbitMQ", []wire.Event{deliver(1, 5), publish("t/m1"), confirm(20), amqp(wire.Ack, 1, 30)}, nil},
		{"RabbitMQ, too late", []wire.Event{deliver(1, 5), publish("t/m1"), amqp(wire.Ack, 1, 30), confirm(40)}, map[Counter]int{AckAhead: 1, SettledUnsaved: 1}},
		{"RabbitMQ, returned", []wire.Event{
			deliver(1, 5), publish("m1"), {Kind: wire.Return, At: 15, Conn: 2, Channel: 1, Session: 1, ID: "m1"}, confirm(20), amqp(wire.Ack, 1, 30),
		}, map[Counter]int{AckAhead: 1, SettledUnsaved: 1}},
	} {
		e := Evidence{Produced: acked(1), Dead: []ledger.Drained{drained("dead", 1)}, Wire: row.wire}
		r := Check(e)
		if !maps.Equal(r.Counts, row.want) && len(r.Counts)+len(row.want) > 0 {
			t.Errorf("%s: %v, want %v; %v", row.name, r.Counts, row.want, r.Reasons())
		}
	}
}

func TestRecoveryIsMeasuredFromTheEndOfAFault(t *testing.T) {
	r := Check(Evidence{
		Produced: acked(0, 1), Sink: []ledger.Observation{saw(0, 10), saw(1, 50)},
		Faults: []ledger.Fault{{From: 1, Until: 5}, {From: 11, Until: 20}, {From: 2, Until: 4, Clean: true}, {From: 55, Until: 60}},
	})
	if median, longest := r.Recovery(); median != 30 || longest != 30 || !slices.Equal(r.Recoveries, []time.Duration{5, 30}) {
		t.Errorf("%v: %v, %v", r.Recoveries, median, longest)
	}
}
