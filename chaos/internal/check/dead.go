package check

import (
	"strings"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// collectDead notes which ids are dead letters, and when each was confirmed.
func (c *run) collectDead() {
	confirmed := c.confirmedRecords()
	published := c.confirmedMessages()
	told := c.publishedTo()
	for _, d := range c.Dead {
		c.result.Dead++
		m := c.messages[d.ID]
		if m == nil {
			continue
		}
		m.dead = true
		at := min(confirmed.at(d), published.at(d.ID))
		if at == never && (!told[d.Source] || c.Rules.Undecodable) {
			at = 0
			c.result.add(DeadUntimed, "%s", d.ID)
		}
		m.saved, m.settled = min(m.saved, at), min(m.settled, at)
	}
}

// publishedTo are the topics, and routing keys, that something was published to over the wire.
func (c *run) publishedTo() map[string]bool {
	told := map[string]bool{}
	for _, e := range c.Wire {
		switch e.Kind {
		case wire.Produce:
			told[c.topic(e)] = true
		case wire.Publish:
			told[e.RoutingKey] = true
		}
	}
	return told
}

// topic is the name of an event's topic.
func (c *run) topic(e wire.Event) string {
	if e.Topic == "" {
		return c.Rules.TopicIDs[e.TopicID]
	}
	return e.Topic
}

// records are ranges of Kafka's offsets, and when they were confirmed.
type records map[record][]confirmation

type record struct {
	topic     string
	partition int32
}

type confirmation struct{ first, next, at int64 }

func (c *run) confirmedRecords() records {
	all := records{}
	for _, e := range c.Wire {
		if e.Kind == wire.ProduceAnswer && e.Code == 0 {
			to := record{c.topic(e), e.Partition}
			all[to] = append(all[to], confirmation{e.Offset, e.Offset + int64(e.Count), e.At})
		}
	}
	return all
}

func (r records) at(d ledger.Drained) int64 {
	for _, c := range r[record{d.Source, d.Partition}] {
		if c.first <= d.Offset && d.Offset < c.next {
			return c.at
		}
	}
	return never
}

// published are ids, and when RabbitMQ first confirmed a message that has one.
type published map[string]int64

func (p published) at(id string) int64 {
	if at, known := p[id]; known {
		return at
	}
	return never
}

// confirmedMessages follows confirms. A message that was returned is confirmed all the same, and nowhere: its return comes first.
func (c *run) confirmedMessages() published {
	all := published{}
	open := map[instance]map[uint64]string{}
	returned := map[instance]map[string]bool{}
	for _, e := range c.Wire {
		at := instanceOf(e)
		switch e.Kind {
		case wire.Publish:
			if open[at] == nil {
				open[at], returned[at] = map[uint64]string{}, map[string]bool{}
			}
			if e.Tag > 0 {
				open[at][e.Tag] = e.ID
			}
		case wire.Return:
			if returned[at] != nil {
				returned[at][e.ID] = true
			}
		case wire.Unconfirm:
			covered(open[at], e, func(string) {})
		case wire.Confirm:
			covered(open[at], e, func(id string) {
				if !returned[at][id] {
					all.confirm(bare(id), e.At)
				}
				delete(returned[at], id)
			})
		}
	}
	return all
}

func (p published) confirm(id string, at int64) {
	if _, known := p[id]; !known {
		p[id] = at
	}
}

// covered takes the numbers out of open that a confirm covers.
func covered(open map[uint64]string, e wire.Event, each func(id string)) {
	if !e.Multiple {
		if id, known := open[e.Tag]; known {
			delete(open, e.Tag)
			each(id)
		}
		return
	}
	for number, id := range open {
		if number <= e.Tag || e.Tag == 0 {
			delete(open, number)
			each(id)
		}
	}
}

// bare cuts the queue's name off the front of an id, which dead letters carry.
func bare(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }
