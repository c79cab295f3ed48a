package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
)

// chore is what a partition needs that takes time: to be drained, and perhaps
// begun anew.
type chore struct {
	part *partition
	own  *ownership
	// again says to begin a new epoch, at to if that is not nil.
	again bool
	to    *int64
	// returned says that own is of an earlier session: the partition returned.
	returned bool
}

// rewind begins a new epoch of part: from its oldest unsettled message, or at to.
// Nothing is handed out until what was handed out has come back. Callers hold
// mu.
func (s *session) rewind(part *partition, to *int64) {
	if s.ended || part.own == nil || part.phase != phaseFetching && part.phase != phaseResolving {
		return
	}
	part.phase = phaseRewinding
	s.drop(part)
	s.chores = append(s.chores, chore{part: part, own: part.own, again: true, to: to})
	kick(s.tendKick)
}

// tendLoop drains partitions that rewind or stop, each by itself: one may wait
// for a handler for long.
func (s *session) tendLoop() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		s.mu.Lock()
		chores := s.chores
		s.chores = nil
		s.mu.Unlock()
		for _, c := range chores {
			wg.Go(func() { s.tend(ctx, c) })
		}
		select {
		case <-s.draining:
			return
		case <-s.tendKick:
		}
	}
}

// tend drains one partition, and begins it anew if that is asked for.
//
//  1. Drain: the pipeline releases what no handler holds.
//  2. Wait: what handlers hold settles, or is released too. From then on
//     nobody can settle within the old epoch.
//  3. The new epoch begins with a ledger that knows what has settled above its
//     start, so that none of that is delivered again.
func (s *session) tend(ctx context.Context, c chore) {
	if c.own == nil {
		return
	}
	c.own.ref.Drain()
	if c.own.ref.Wait(ctx) != nil || !c.again {
		return
	}
	if !c.returned && !s.rest(c.part) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || c.part.own != c.own || c.part.phase != phaseRewinding {
		return
	}
	c.own.ref.End()
	if !c.returned {
		s.producer.count.rewinds.Add(1)
	}
	ledger, pin := c.own.ledger.Rewind(), c.own.pin
	if c.to != nil {
		// What is left unsettled below is still to come; above, offsets are used
		// anew, and the old ledger says nothing about them.
		ledger, pin = acknowledgers.ResumeOffsets(min(*c.to, ledger.Next()), spansBelow(ledger.Skipped(), *c.to)), true
	}
	own := s.newOwnership(c.part, ledger)
	own.pin, own.epochs = pin, epochsBelow(c.own.epochs, ledger.Position())
	own.inherited, own.durable = max(c.own.inherited, c.own.lastEpoch()), c.own.durable
	if c.to == nil {
		own.untold = c.own.unsaid()
		own.pin = pin || own.untold > 0
	} else {
		c.part.forget() // they are about other messages
	}
	c.part.own = own
	s.drop(c.part)
	c.part.phase, c.part.fetchOffset, c.part.fetchEpoch, c.part.tail = phaseFetching, ledger.Position(), own.lastEpoch(), false
	kick(s.fetchKick)
}

// spansBelow is what spans says of offsets below end.
func spansBelow(spans []acknowledgers.Span, end int64) (below []acknowledgers.Span) {
	for _, s := range spans {
		if s.First < end {
			below = append(below, acknowledgers.Span{First: s.First, End: min(s.End, end)})
		}
	}
	return below
}

// rest waits before a partition begins anew, the longer the more often it did so
// without progress, and says whether the session goes on.
func (s *session) rest(part *partition) bool {
	s.mu.Lock()
	part.rewinds++
	pause := backoff(part.rewinds, 10*time.Second)
	s.mu.Unlock()
	return s.pauseFor(pause)
}
