package check

import (
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// instance is one life of an AMQP channel, whose tags are its own.
type instance struct {
	conn    int64
	channel uint16
	session int
}

func instanceOf(e wire.Event) instance { return instance{e.Conn, e.Channel, e.Session} }

// deliveries are what an instance has open, by tag.
type deliveries struct {
	open   map[uint64]string
	lowest uint64 // nothing below is open
	newest uint64
}

// checkAcks follows each channel: what an ack covers must be settled, and open on that channel.
func (c *run) checkAcks() {
	channels := map[instance]*deliveries{}
	for _, e := range c.Wire {
		d := channels[instanceOf(e)]
		switch e.Kind {
		case wire.Deliver, wire.GetOK:
			if e.Queue != "" && !c.own(e.Queue) {
				continue
			}
			if d == nil {
				d = &deliveries{open: map[uint64]string{}, lowest: e.Tag}
				channels[instanceOf(e)] = d
			}
			d.open[e.Tag] = e.ID
			d.lowest, d.newest = min(d.lowest, e.Tag), max(d.newest, e.Tag)
			if e.NoAck {
				d.close(e.Tag, func(id string) { c.acked(id, e) })
			}
		case wire.Ack, wire.Nack, wire.Reject:
			c.settle(d, e)
		}
	}
}

// settle closes what e covers.
func (c *run) settle(d *deliveries, e wire.Event) {
	each := func(id string) { c.acked(id, e) }
	if e.Kind != wire.Ack && (e.Requeue || c.Rules.RejectDrops) {
		each = func(string) {} // given back, or handed on by the broker
	}
	if d == nil {
		d = new(deliveries)
	}
	if _, open := d.open[e.Tag]; !open && (e.Tag != 0 || !e.Multiple) {
		c.result.add(StaleAck, "%s of %d on channel %d.%d of connection %d", e.Kind, e.Tag, e.Channel, e.Session, e.Conn)
	}
	if !e.Multiple {
		d.close(e.Tag, each)
		return
	}
	last := e.Tag
	if last == 0 || last > d.newest {
		last = d.newest
	}
	for ; d.lowest <= last && d.open != nil; d.lowest++ {
		d.close(d.lowest, each)
	}
}

func (d *deliveries) close(tag uint64, each func(id string)) {
	if id, open := d.open[tag]; open {
		delete(d.open, tag)
		each(id)
	}
}

// acked is one message that an ack covers. Of ids that nobody produced nothing can be said here: they are phantoms.
func (c *run) acked(id string, e wire.Event) {
	c.result.Acks++
	m := c.messages[id]
	if m == nil {
		return
	}
	if m.settled >= e.At {
		c.result.add(AckAhead, "%s by %s of %d on channel %d.%d of connection %d", id, e.Kind, e.Tag, e.Channel, e.Session, e.Conn)
	}
	m.released = min(m.released, e.At)
}
