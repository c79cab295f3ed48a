package memory

import (
	"context"
	"errors"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// slabBits is how many bits of a message's seq are its index in a slab.
const slabBits = 20

// lease is what one producer holds of one partition within one session: the
// data of an AckRef. The mutex of its queue protects it.
type lease struct {
	ref       *broadway.AckRef
	partition int
	limit     int             // of unsettled messages, 0 for none
	slabs     map[int64]*slab // by seq >> slabBits
	nextSlab  int64
	unsettled int
	stopped   bool
	ended     bool
}

// slab is the messages of one partition that one Fetch returned. It is kept
// until the last of them has settled.
type slab struct {
	entries []entry
	left    int
}

// add makes the lease hold entries, and gives the seq of the first.
func (l *lease) add(entries []entry) int64 {
	id := l.nextSlab
	l.nextSlab++
	l.slabs[id] = &slab{entries: entries, left: len(entries)}
	l.unsettled += len(entries)
	return id << slabBits
}

// remove takes out the message of seq, and says whether it was there.
func (l *lease) remove(seq int64) (entry, bool) {
	s, ok := l.slabs[seq>>slabBits]
	if !ok {
		return entry{}, false
	}
	e := &s.entries[seq&(1<<slabBits-1)]
	if e.gone {
		return entry{}, false
	}
	removed := *e
	e.gone, e.payload = true, nil
	s.left--
	if s.left == 0 {
		delete(l.slabs, seq>>slabBits)
	}
	l.unsettled--
	return removed, true
}

// end takes out all that is left, which the lease then holds no longer.
func (l *lease) end() []entry {
	var left []entry
	for _, s := range l.slabs {
		for i := range s.entries {
			if !s.entries[i].gone {
				left = append(left, s.entries[i])
			}
		}
	}
	l.ended, l.slabs, l.unsettled = true, nil, 0
	return left
}

// errEnded is why nothing was settled: the partition was taken away meanwhile, and what
// was open in it is delivered again.
var errEnded = errors.New("memory: the partition was taken away")

// Ack settles messages: see [broadway.Acknowledger]. It fails only when ref has ended
// meanwhile.
func (p *Producer) Ack(_ context.Context, ref *broadway.AckRef, ok, failed []*broadway.Message) error {
	late := p.settle(ref, ok, func(*broadway.Message) Outcome { return Succeeded })
	late += p.settle(ref, failed, outcomeOf)
	if late > 0 {
		return errEnded
	}
	return nil
}

// Release gives messages back: see [broadway.Releaser]. They are delivered again
// after RedeliverAfter.
func (p *Producer) Release(_ context.Context, ref *broadway.AckRef, messages []*broadway.Message) error {
	p.settle(ref, messages, func(*broadway.Message) Outcome { return Released })
	return nil
}

func outcomeOf(m *broadway.Message) Outcome {
	switch m.Action() {
	case broadway.ActionDeadLetter:
		return DeadLettered
	case broadway.ActionReject:
		return Rejected
	case broadway.ActionRequeue:
		return Requeued
	case broadway.ActionStopPartition:
		return Stopped
	case broadway.ActionStopPipeline:
		return Released
	}
	return Dropped
}

// told is what somebody wants to be told of.
type told struct {
	outcome Outcome
	message *broadway.Message
}

func (p *Producer) settle(ref *broadway.AckRef, messages []*broadway.Message, outcome func(*broadway.Message) Outcome) (late int) {
	if len(messages) == 0 {
		return 0
	}
	list, late := p.queue.settle(ref.Data().(*lease), messages, outcome)
	for _, t := range list {
		p.queue.cfg.Settled(t.outcome, t.message)
	}
	return late
}

// settle takes messages out of l. What is stale is counted and goes no further; late says
// how many are since l has ended.
func (q *Queue) settle(l *lease, messages []*broadway.Message, outcome func(*broadway.Message) Outcome) (list []told, late int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	due := time.Now().Add(q.cfg.RedeliverAfter)
	for _, m := range messages {
		e, ok := l.remove(m.Seq())
		if !ok {
			q.counts.Stale++
			if l.ended {
				late++
			}
			continue
		}
		o := outcome(m)
		q.counts.add(o)
		q.leave(l, e, o, due)
		if q.cfg.Settled != nil {
			list = append(list, told{o, m})
		}
	}
	q.wake()
	return list, late
}

// leave does with e, which has left l, what o says. q.mu is held.
func (q *Queue) leave(l *lease, e entry, o Outcome, due time.Time) {
	p := &q.partitions[l.partition]
	p.unsettled--
	switch o {
	case Requeued, Released:
		q.waiting++
		p.parked = append(p.parked, park{e, due})
	case Stopped:
		q.waiting++
		p.restore(e)
		l.stopped = true
	}
}
