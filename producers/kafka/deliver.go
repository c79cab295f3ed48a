package kafka

import (
	"cmp"
	"context"
	"slices"

	"github.com/gobroadway/gobroadway/broadway"
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
	var told *session // that this waits
	for {
		s, err := p.current()
		if err != nil {
			return nil, err
		}
		if s != nil {
			var messages []*broadway.Message
			messages, err = s.deliver(d)
			if len(messages) > 0 || err != nil {
				s.whet()
				return messages, err
			}
		}
		if p.blocked.Store(true); s != nil && s != told {
			told = s
			kick(s.fetchKick)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-p.ready:
		}
	}
}

// whet lets fetchLoop know of the demand that it lacked.
func (s *session) whet() {
	s.mu.Lock()
	lacks := s.hungry || s.tight
	s.mu.Unlock()
	if lacks {
		kick(s.fetchKick)
	}
}

// deliver hands out what is there and wanted. It is called by one goroutine at a
// time.
func (s *session) deliver(d broadway.Demand) (messages []*broadway.Message, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, expanded := s.affordable(s.readyParts())
	messages = make([]*broadway.Message, 0, most(ready, d.Messages))
	var tooLarge int64
	for i, part := range ready {
		left := d.Messages - len(messages)
		if left == 0 {
			break
		}
		before, full := part.expanded(), expanded >= s.mostExpanded()
		if full && before == 0 {
			continue
		}
		parts := len(ready) - i
		h := s.surface(part, messages, max((left+parts-1)/parts, min(left, minRun)), d.Bytes, full)
		expanded += part.expanded() - before
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
	// What comes, and room, wake Fetch: what settles has to only if something is there. It
	// sees that, or Fetch what settled: both hold mu.
	s.stuck = len(messages) == 0 && slices.ContainsFunc(s.parts, func(p *partition) bool { return len(p.segments) > 0 })
	if len(messages) == 0 && tooLarge > 0 {
		return nil, broadway.NeedBytes(tooLarge)
	}
	return messages, nil
}

// most is how many messages parts may hand out, up to wanted.
func most(parts []*partition, wanted int) int {
	n := int64(0)
	for _, p := range parts {
		n += p.waiting()
	}
	return int(min(n, int64(wanted)))
}

// readyParts lists the partitions that can hand out, in turn. Callers hold mu.
func (s *session) readyParts() (ready []*partition) {
	if s.ended {
		return nil
	}
	n := len(s.parts)
	only, none := s.alone()
	if none {
		return nil
	}
	for i := range n {
		p := s.parts[(s.rover+i)%n]
		if p.phase != phaseFetching || only != nil && only != p || s.waits(p) {
			continue
		}
		if p.own.ref.Room() > 0 && len(p.segments) > 0 && s.windowLeft(p) > 0 {
			ready = append(ready, p)
		}
	}
	if len(ready) > 0 {
		s.rover = (ready[0].at + 1) % n
	}
	return ready
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

// surface brings up messages of one partition, in what before has left of its array. It gives mu away while it decodes;
// decoding keeps the segment in place meanwhile. When full it opens no further batch.
// Callers hold mu.
func (s *session) surface(part *partition, before []*broadway.Message, most int, bytes int64, full bool) (h haul) {
	own := part.own
	if part.phase != phaseFetching {
		return h
	}
	most = own.ref.Take(int(min(int64(most), s.windowLeft(part))))
	d := s.producer.decoder
	h.messages, h.spans, h.epochs = before[len(before):], d.spans[:0], d.epochs[:0]
	h.next, h.below, h.leader, h.full = own.ledger.Position(), s.allowed(part), part.leader.epoch, full
	for len(h.messages) < most && len(part.segments) > 0 && h.goesOn() {
		seg := part.segments[0]
		part.decoding = true
		s.mu.Unlock()
		seg.fill(d, own, most-len(h.messages), bytes, &h)
		s.mu.Lock()
		part.decoding = false
		if own.session.Load() != s {
			// The next session has taken it over meanwhile, and reads this again.
			own.ref.Untake(most)
			s.drop(part)
			return haul{}
		}
		seg.expected = seg.waiting()
		part.growth = cmp.Or(seg.growth, part.growth)
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
	d.spans, d.epochs = h.spans, h.epochs
	part.attempts(h.messages)
	if h.held {
		s.ask(part, h.offset, h.offsetEpoch)
	}
	own.ref.Untake(most - len(h.messages))
	switch {
	case s.ended || part.phase != phaseFetching:
		s.drop(part)
	case h.cut > 0:
		s.truncate(part, own.beyond(), h.cut)
	case h.err != nil:
		s.spoiled(part, part.segments[0], h.err)
	case len(h.messages) > 0:
		part.corrupt, part.spoils = 0, 0
	}
	return h
}
