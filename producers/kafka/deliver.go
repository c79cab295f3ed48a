package kafka

import (
	"context"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Fetch looks again after minRoomPoll, and then less and less often, while
// something waits for room in its AckRef: nobody announces that room comes back.
// It comes right after an Ack, which is when the looking begins anew.
const (
	minRoomPoll = 50 * time.Microsecond
	maxRoomPoll = 2 * time.Millisecond
)

// minRun is how many messages of one partition stand together at least, if so
// many are asked for: shorter runs would cost more than fairness gains.
const minRun = 32

// Fetch hands out messages of all partitions in turn: see [broadway.Producer]. It
// waits while there are none, also while the group rebalances or brokers do not
// answer; see [Producer.Health].
func (p *Producer) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	p.asks.Add(1)
	defer p.blocked.Store(false)
	poll := minRoomPoll
	for {
		s, err := p.current()
		if err != nil {
			return nil, err
		}
		var roomless bool
		if s != nil {
			var messages []*broadway.Message
			messages, roomless, err = s.deliver(d)
			if len(messages) > 0 || err != nil {
				s.whet()
				return messages, err
			}
		}
		if p.blocked.CompareAndSwap(false, true) && s != nil {
			kick(s.fetchKick)
		}
		if !roomless {
			poll = 0
		}
		if poll, err = p.await(ctx, poll); err != nil {
			return nil, err
		}
		if roomless {
			kick(s.fetchKick) // what has room again may be fetched, too
		}
	}
}

// await returns when something may have changed, after poll unless that is 0, or
// with the cause of ctx. It says how long to poll next time.
func (p *Producer) await(ctx context.Context, poll time.Duration) (time.Duration, error) {
	var tick <-chan time.Time
	if poll > 0 {
		timer := time.NewTimer(poll)
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-p.ready:
		return minRoomPoll, nil
	case <-tick:
		return min(2*poll, maxRoomPoll), nil
	}
}

// whet lets fetchLoop know of the demand that it lacked.
func (s *session) whet() {
	s.mu.Lock()
	hungry := s.hungry
	s.mu.Unlock()
	if hungry {
		kick(s.fetchKick)
	}
}

// deliver hands out what is there and wanted, and says whether something waits
// for room. It is called by one goroutine at a time.
func (s *session) deliver(d broadway.Demand) (messages []*broadway.Message, roomless bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, roomless := s.readyParts()
	var tooLarge int64
	for i, part := range ready {
		left := d.Messages - len(messages)
		if left == 0 {
			break
		}
		parts := len(ready) - i
		h := s.surface(part, max((left+parts-1)/parts, min(left, minRun)), d.Bytes)
		messages = append(messages, h.messages...)
		d.Bytes -= h.bytes
		if h.tooLarge > 0 && tooLarge == 0 {
			tooLarge = h.tooLarge
			s.rover = part.at // it comes first next time
			if len(messages) == 0 {
				break // others must not eat what it waits for
			}
		}
	}
	if len(messages) == 0 && tooLarge > 0 {
		return nil, roomless, broadway.NeedBytes(tooLarge)
	}
	return messages, roomless, nil
}

// readyParts lists the partitions that can hand out, in turn, and says whether
// one has no room. Callers hold mu.
func (s *session) readyParts() (ready []*partition, roomless bool) {
	if s.ended {
		return nil, false
	}
	n := len(s.parts)
	for i := range n {
		p := s.parts[(s.rover+i)%n]
		if p.phase != phaseFetching {
			continue
		}
		if p.own.ref.Room() == 0 {
			roomless = true
			continue
		}
		if len(p.segments) > 0 && s.windowLeft(p) > 0 {
			ready = append(ready, p)
		}
	}
	if len(ready) > 0 {
		s.rover = (ready[0].at + 1) % n
	}
	return ready, roomless
}

// windowLeft is how many messages p may hand out before something must be
// committed. Callers hold mu.
func (s *session) windowLeft(p *partition) int64 {
	left := s.window - p.own.ledger.Uncommitted()
	if left <= 0 {
		kick(s.commitKick)
	}
	return left
}

// surface brings up messages of one partition. It gives mu away while it decodes;
// decoding keeps the segment in place meanwhile. Callers hold mu.
func (s *session) surface(part *partition, most int, bytes int64) (h haul) {
	own := part.own
	if part.phase != phaseFetching {
		return h
	}
	most = own.ref.Take(int(min(int64(most), s.windowLeft(part))))
	h.next = own.ledger.Position()
	for len(h.messages) < most && len(part.segments) > 0 && h.err == nil && h.tooLarge == 0 {
		seg := part.segments[0]
		part.decoding = true
		s.mu.Unlock()
		seg.fill(s.producer.decoder, own, most-len(h.messages), bytes, &h)
		s.mu.Lock()
		part.decoding = false
		seg.expected = seg.waiting()
		if seg.expected == 0 && h.err == nil {
			s.free(seg)
			part.segments = part.segments[1:]
			kick(s.fetchKick)
		}
		if s.ended || part.phase != phaseFetching {
			break
		}
	}
	own.delivered(&h)
	own.ref.Untake(most - len(h.messages))
	switch {
	case s.ended || part.phase != phaseFetching:
		s.drop(part)
	case h.err != nil:
		s.spoiled(part, part.segments[0], h.err)
	case len(h.messages) > 0:
		part.corrupt = 0
	}
	return h
}
