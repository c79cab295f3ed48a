package kafka

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
)

// phase is what a partition of a session is at.
type phase uint8

const (
	// Zero waits for the group's committed offset.
	_ phase = iota
	// phaseResolving asks the leader for an offset: where to begin, or where to
	// go on after the position was found not to exist.
	phaseResolving
	// phaseFetching hands out messages.
	phaseFetching
	// phaseRewinding waits until what was handed out has come back, to begin
	// again with the oldest unsettled message.
	phaseRewinding
	// phaseStopped hands out nothing more in this generation; see failure.
	phaseStopped
)

// partition is one assigned partition of a session. All fields after name are
// guarded by the session's mutex, but for the head of segments while decoding.
type partition struct {
	name topicPartition
	at   int // in the session's list
	// topicID tells the topic from others of its name, before and after it. Zero
	// while it is not known, as always with Kafka before 2.8.
	topicID [16]byte

	phase   phase
	failure error // why it is stopped, or does not come along; nil when it does
	own     *ownership

	// leader is as metadata told last. replica is the one that the leader wants
	// to be read instead, until replicaUntil; anyBroker when there is none.
	leader       leader
	replica      int32
	replicaUntil time.Time

	// timestamp is what phaseResolving asks for, and lost the position that does
	// not exist, -1 at the start.
	timestamp int64
	lost      int64

	fetchOffset int64
	fetchEpoch  int32 // the leader epoch of the record before it, -1 when none is known
	segments    []*segment
	decoding    bool  // Fetch reads segments[0], without the mutex
	inflight    bool  // an exchange asks for it
	tail        bool  // nothing was left at the broker
	partBytes   int   // bytes to ask for, at most
	latest      int64 // records of the last segment, at most: half of them are handed out before the next is asked for
	ahead       int   // how large the next batch is, in bytes, 0 when it is not known
	growth      int64 // by how much the batch that was opened last grew as it was decompressed, in units of ratioUnit; 0 for none
	turn        int64

	highWatermark int64 // -1 when it is not known yet
	logStart      int64

	notBefore time.Time // no exchange before
	// doubted is when the broker denied the topic, zero when it does not: it may
	// be created anew, and nothing is fetched before its id was looked at since.
	doubted  time.Time
	failures int // exchanges that failed in a row
	corrupt  int // answers in a row whose first batch was corrupt in the same way
	spoils   int // the same, in whatever way
	detours  int // answers in a row that led elsewhere
	// alone says that an answer was too large of which it was a part: it is asked
	// for by itself until it is known whose batch that was.
	alone   bool
	rewinds int // rewinds in a row without progress
	// spoiledBy is what was wrong with a batch last.
	spoiledBy string
	// doubt is the base offset of a batch that was not believed, -1 for none: see measure.
	doubt int64

	// marks is what the next commit says; told is what a durable one of this session
	// says. asked says that a message waits for marks to become told.
	marks, told marks
	asked       bool
	trialEpoch  int32 // the leader epoch of marks.trial, or a later one
	clipped     bool  // see clip

	// renewed says that what was committed is about a topic that is no more.
	renewed bool
}

// ownership is one epoch of a partition: what the messages' AckRef leads to. A
// rewind begins a new one. The ledger is guarded by the session's mutex.
type ownership struct {
	// session is what it belongs to, which changes when the partition returns: see
	// lock.
	session atomic.Pointer[session]
	part    *partition
	ref     *broadway.AckRef
	ledger  *acknowledgers.Offsets
	salt    uint64

	epochs []epochStart
	// inherited is a leader epoch of which what the ledger began with is, or of
	// an earlier one.
	inherited int32
	// told counts messages of the ledger that had settled when the last durable
	// commit was made, and untold those of them that it has left out.
	told, untold int64
	// pin says that the start is to be committed although nothing has settled.
	pin bool
	// durable says that the group has a commit of the partition.
	durable bool
	// void says that nothing is to be committed: the topic is another one now.
	void bool
}

// newOwnership begins an epoch of p. Callers hold the session's mutex.
func (s *session) newOwnership(p *partition, ledger *acknowledgers.Offsets) *ownership {
	o := &ownership{part: p, ledger: ledger, salt: s.producer.salt(p.name)}
	o.session.Store(s)
	o.ref = broadway.NewAckRef(s.producer, o, s.share)
	o.ref.OnRoom(func() {
		s.producer.wake()
		kick(s.fetchKick) // what has room again may be fetched, too
	})
	return o
}

// dirty says whether there is something to commit: a prefix, what has settled above
// it, or marks.
func (o *ownership) dirty() bool {
	return !o.void && (o.pin || o.ledger.Next() > o.ledger.Committed() || o.ledger.Settled() != o.told || o.part.marks != o.part.told)
}

// unsaid counts what has settled and would come again after a crash.
func (o *ownership) unsaid() int64 { return o.ledger.Settled() - o.told + o.untold }

// commitment is what to commit now, with a note of at most most characters, or
// none when that is 0.
func (o *ownership) commitment(topic [16]byte, most int) commitment {
	next := o.ledger.Next()
	c := commitment{partition: o.part.name, next: next, epoch: o.epochBelow(next), own: o, marks: o.part.marks, settled: o.ledger.Settled()}
	if most == 0 {
		c.untold = o.ledger.SettledAbove()
		return c
	}
	n := note{topic: topic, base: next, epoch: -1, by: o.session.Load().writer(), marks: c.marks, spans: o.ledger.Above()}
	if k := len(n.spans); k > 0 {
		n.epoch = max(o.epochBelow(n.spans[k-1].End), o.inherited)
	}
	if c.marks.attempt > 0 {
		n.epoch = max(n.epoch, o.part.trialEpoch)
	}
	c.metadata, c.untold = n.encode(most)
	return c
}

// epochBelow is the leader epoch of the last message below offset, -1 when it is
// not known.
func (o *ownership) epochBelow(offset int64) int32 {
	for i := len(o.epochs) - 1; i >= 0; i-- {
		if o.epochs[i].offset < offset {
			return o.epochs[i].epoch
		}
	}
	return -1
}

// committed tells that c is durable.
func (o *ownership) committed(c commitment) {
	o.pin, o.durable = false, true
	o.told, o.untold = c.settled, c.untold
	if o.part.told = c.marks; o.part.marks == c.marks {
		o.part.asked = false
	}
	if c.next > o.ledger.Committed() {
		o.part.rewinds = 0
	}
	o.ledger.Commit(c.next)
	// Of the epochs below next only the last one is asked for again.
	for len(o.epochs) > 1 && o.epochs[1].offset < c.next {
		o.epochs = slices.Delete(o.epochs, 0, 1)
	}
}

// delivered tells what a haul handed out.
func (o *ownership) delivered(h *haul) {
	for _, sp := range h.spans {
		o.ledger.Deliver(sp.first, sp.count)
		if sp.passed {
			o.ledger.Settle(sp.first, sp.count)
		}
	}
	o.ledger.Advance(h.next)
	for _, e := range h.epochs {
		if last := o.lastEpoch(); o.part.laterEpoch(last, e.epoch) != last {
			o.epochs = append(o.epochs, e)
		}
	}
}

// epochsBelow is what epochs says of the offsets below next.
func epochsBelow(epochs []epochStart, next int64) []epochStart {
	i := slices.IndexFunc(epochs, func(e epochStart) bool { return e.offset >= next })
	if i < 0 {
		return epochs
	}
	return epochs[:i:i]
}

// lastEpoch is the leader epoch of the last record below the ledger's position, -1
// when none is known.
func (o *ownership) lastEpoch() int32 {
	if len(o.epochs) == 0 {
		return -1
	}
	return o.epochs[len(o.epochs)-1].epoch
}

// laterEpoch is the leader epoch after a batch whose head says told, where it was
// last before. A batch's checksum does not cover that field: what cannot be, because
// epochs only rise, and none is above the leader's, is not believed.
func (p *partition) laterEpoch(last, told int32) int32 {
	if told > last && told <= p.leader.epoch {
		return told
	}
	return last
}

// waiting is how many records wait in the client, at most.
func (p *partition) waiting() (n int64) {
	for _, seg := range p.segments {
		n += seg.expected
	}
	return n
}

// wants is how many bytes to ask for: whole batches, and the head of the one behind
// them, as brokers cut an answer off anywhere, and what is cut off comes twice. How
// large the next batch is the answer before has told, those after it are taken to be
// like it, unless they are large. Batches that are compressed count as what they grow
// to: more of them would wait in memory for as long as it takes to hand that out.
func (p *partition) wants() int {
	room := p.partBytes - atBody
	if p.ahead == 0 || p.ahead > room {
		return p.partBytes
	}
	room = int(int64(room) * ratioUnit / p.grows())
	if p.ahead > room/4 {
		return p.ahead + atBody
	}
	return room/p.ahead*p.ahead + atBody
}

// mostGrowth is the most that a batch is taken to grow by, before it is known.
const mostGrowth = 16

// grows is by how much the next batches are taken to grow, in units of ratioUnit.
func (p *partition) grows() int64 {
	return min(max(p.growth, ratioUnit), mostGrowth*ratioUnit)
}

// target is the broker to ask, anyBroker when it is not known.
func (p *partition) target(now time.Time) int32 {
	if p.replica != anyBroker && now.Before(p.replicaUntil) {
		return p.replica
	}
	if p.leader.err != nil {
		return anyBroker
	}
	return p.leader.node
}

// atTail says whether a fetch would find nothing.
func (p *partition) atTail(end int64) bool { return p.fetchOffset >= end }

// lag is how many messages are not settled, those at the broker included.
func (p *partition) lag() (int64, bool) {
	if p.own == nil || p.highWatermark < 0 {
		return 0, false
	}
	return max(p.highWatermark-p.own.ledger.Next(), 0), true
}
