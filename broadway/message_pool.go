package broadway

import (
	"math/bits"
	"slices"
	"sync"
)

// MessagePool is where a producer gets Messages, and metadata for them, that are used
// again: the pipeline brings them back once all of a slab have settled. Without it
// each message is a new object for the collector. It is safe for concurrent use; the
// zero value is ready.
//
// M is the producer's metadata. What a pool keeps is bounded by what was in use at once.
type MessagePool[M any] struct {
	mu   sync.Mutex          // protects following field
	free [][]*messageSlab[M] // by the power of two that they have room for
}

// messageSlab is an array of messages, and their chunk, so that what points from one to
// the other is written once.
type messageSlab[M any] struct {
	pool     *MessagePool[M]
	birth    chunk
	all      []Message
	messages []*Message
	metadata []M
}

// Get returns n messages, to be made by [Message.Init], and their metadata, to be written
// as a whole: each message's Metadata is a *M that points to it already. They are a slab, as if by
// [Message.BeginSlab]; their payloads may lie in an array of the producer's, which is not used again.
//
// They are used again if one Fetch returns all n of them, in their order and with one
// AckRef, and no handler or reporter was given up that may still have one. Neither they nor their metadata may be used
// after they have settled: an Acknowledger that needs any of it later copies it.
func (p *MessagePool[M]) Get(n int) (messages []*Message, metadata []M) {
	s := p.take(n)
	s.birth.messages = s.messages[:n:n] // who appends to it does not write over the slab's others
	s.messages[0].marks = begins
	return s.birth.messages, s.metadata[:n:n]
}

// take finds a slab with room for n, and for less than twice as many.
func (p *MessagePool[M]) take(n int) *messageSlab[M] {
	class := bits.Len(uint(n - 1))
	p.mu.Lock()
	if class < len(p.free) {
		if last := len(p.free[class]) - 1; last >= 0 {
			s := p.free[class][last]
			p.free[class][last] = nil
			p.free[class] = p.free[class][:last]
			p.mu.Unlock()
			return s
		}
	}
	p.mu.Unlock()
	size := 1 << class
	s := &messageSlab[M]{pool: p, all: make([]Message, size), messages: make([]*Message, size), metadata: make([]M, size)}
	for i := range s.all {
		m := &s.all[i]
		m.chunk, m.Metadata = &s.birth, &s.metadata[i]
		s.messages[i] = m
	}
	s.birth.home = s
	return s
}

// home is where the messages of a chunk go once all have settled.
type home interface{ back() }

// keptPayload is how large the payloads of a slab may be, in bytes, to be left to it
// until it is used again: to let go of each costs.
const keptPayload = 32 << 10

// back keeps what Get gave for the next one, as if new.
func (s *messageSlab[M]) back() {
	c := &s.birth
	large := c.kept-MessageOverhead*int64(len(c.messages)) > keptPayload
	for i, m := range c.messages {
		m.reuse(large)
		if kept, ok := m.Metadata.(*M); !ok || kept != &s.metadata[i] {
			m.Metadata = &s.metadata[i]
		}
	}
	if large {
		clear(s.metadata[:len(c.messages)])
	}
	c.reuse()
	s.pool.keep(s)
}

func (p *MessagePool[M]) keep(s *messageSlab[M]) {
	class := bits.Len(uint(len(s.all) - 1))
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) <= class {
		p.free = append(p.free, nil)
	}
	p.free[class] = append(p.free[class], s)
}

// reuse makes m as it was when it was made, but for what Init writes and for what is
// the same in the same place.
func (m *Message) reuse(large bool) {
	if large {
		m.Payload = nil
	}
	if m.Value != nil {
		m.Value = nil
	}
	if m.BatchKey != "" {
		m.BatchKey = ""
	}
	if m.Batcher != "" {
		m.Batcher = ""
	}
	if m.err != nil {
		m.err = nil
	}
	m.state, m.BatchMode, m.Redelivered, m.retry, m.giveBack = stateOpen, Bulk, false, false, false
	m.lane, m.arrival, m.earlier, m.stage, m.action, m.marks = 0, 0, 0, 0, ActionNone, 0
}

// reuse makes c a chunk that nobody has seen.
func (c *chunk) reuse() {
	c.messages, c.blocks, c.prev, c.next = nil, nil, nil, nil
	c.recalled.Store(false)
}

// birthOf is the chunk of a pool that messages are all of, or nil.
func birthOf(messages []*Message) *chunk {
	birth := messages[0].chunk
	if birth == nil || !slices.Equal(birth.messages, messages) {
		return nil
	}
	return birth
}
