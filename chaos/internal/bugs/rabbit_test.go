package bugs

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
)

// session is a connection with a channel that consumes.
type session struct {
	s    *stage
	conn *amqp.Connection
	ch   *amqp.Channel
	in   <-chan amqp.Delivery
}

func (s *stage) dial(prefetch int) *session {
	s.t.Helper()
	conn, err := rig.DialAMQP(s.rabbit.Proxied(), "bugs")
	s.must(err)
	return s.consume(conn, prefetch)
}

func (s *stage) consume(conn *amqp.Connection, prefetch int) *session {
	s.t.Helper()
	ch, err := conn.Channel()
	s.must(err)
	s.must(ch.Qos(prefetch, 0, false))
	in, err := ch.Consume(s.name, "", false, false, false, false, nil)
	s.must(err)
	return &session{s, conn, ch, in}
}

// read takes n deliveries.
func (c *session) read(n int) (read []amqp.Delivery) {
	c.s.t.Helper()
	for range n {
		select {
		case d, ok := <-c.in:
			if !ok {
				c.s.t.Fatal("the channel is closed")
			}
			read = append(read, d)
		case <-time.After(20 * time.Second):
			c.s.t.Fatal("nothing comes")
		}
	}
	return read
}

func (s *stage) receive(d amqp.Delivery) {
	s.t.Helper()
	s.saw(ledger.Observation{Tag: d.DeliveryTag, Redelivered: d.Redelivered}, d.Body)
}

// rest handles what is left, without a mistake.
func (c *session) rest(n int) {
	c.s.t.Helper()
	for range n {
		d := c.read(1)[0]
		c.s.receive(d)
		c.s.must(d.Ack(false))
	}
}

// flush returns when the broker has what was sent on the channel: it answers in order.
func (c *session) flush() {
	c.s.t.Helper()
	c.s.must(c.ch.Qos(20, 0, false))
}

// close ends a session in good order. The acks before it have arrived by then.
func (c *session) close() {
	c.s.t.Helper()
	c.s.must(c.conn.Close())
}

func cleanRabbit(s *stage) {
	c := s.dial(10)
	c.rest(messages / 2)
	c.close()
	c = s.dial(10)
	c.rest(messages / 2)
	c.close()
}

func ackBeforeSink(s *stage) {
	c := s.dial(10)
	for range messages {
		d := c.read(1)[0]
		s.must(d.Ack(false))
		c.flush()
		s.receive(d)
	}
	c.close()
}

// An ack comes after its connection broke, and is sent on the next one, where its tag is another message.
func ackWithReusedTag(s *stage) {
	c := s.dial(10)
	c.rest(9)
	late := c.read(1)[0]
	s.receive(late)
	c.flush()
	s.fault("cut", func() { s.proxy.CutAll() })
	c = s.dial(20)
	read := c.read(20)
	s.must(c.ch.Ack(late.DeliveryTag, false))
	c.flush()
	for _, d := range read {
		s.receive(d)
		if d.DeliveryTag != late.DeliveryTag {
			s.must(d.Ack(false))
		}
	}
	c.rest(messages - 9 - 20)
	c.close()
}

// The original is acknowledged while its dead letter is on the way.
func settleBeforeDeadLetter(s *stage) {
	c := s.dial(10)
	d := c.read(1)[0]
	s.must(d.Ack(false))
	c.flush()
	out, err := c.conn.Channel()
	s.must(err)
	s.must(out.Confirm(false))
	confirm, err := out.PublishWithDeferredConfirm("", s.name+"-dead", true, false, amqp.Publishing{MessageId: d.MessageId, Body: d.Body})
	s.must(err)
	if !confirm.Wait() {
		s.t.Fatal("refused")
	}
	c.rest(messages - 1)
	c.close()
}

// The broker cancels the consumer; what the closed Go channel yields is handled as a message.
func closedChannelAsMessage(s *stage) {
	c := s.dial(10)
	c.rest(messages)
	s.must(c.ch.Cancel("", false)) // no such consumer: nothing happens
	s.must(s.rabbit.DeleteQueue(s.name))
	d := <-c.in
	s.receive(d)
	c.close()
	s.must(s.rabbit.CreateQueue(s.name, nil))
}

// An id is remembered when it comes, not when it has succeeded: after a failure its next delivery is taken for a repeat.
func dedupBeforeSuccess(s *stage) {
	c := s.dial(10)
	known := map[string]bool{}
	for range messages + 1 {
		d := c.read(1)[0]
		if known[d.MessageId] {
			s.must(d.Ack(false))
			continue
		}
		known[d.MessageId] = true
		if len(known) == 1 {
			s.must(d.Nack(false, true))
			continue
		}
		s.receive(d)
		s.must(d.Ack(false))
	}
	c.close()
}

// amqp091 with Recovery brings its channel back under the same Go object, and late acks with it: the anchor.
func recoveryConsumer(s *stage) {
	config := amqp.Config{Dial: amqp.DefaultDial(10 * time.Second), Heartbeat: 10 * time.Second, Recovery: &amqp.Recovery{}}
	conn, err := amqp.DialConfig(s.rabbit.Proxied(), config)
	s.must(err)
	c := s.consume(conn, 10)
	read := c.read(10)
	for _, d := range read {
		s.receive(d)
	}
	s.fault("cut", func() { s.proxy.CutAll() })
	again := c.read(10) // on the connection that was recovered
	for _, d := range read {
		s.must(d.Ack(false))
	}
	for _, d := range again {
		s.receive(d)
		_ = d.Ack(false) // the broker closes the channel, whose tags were acknowledged above, perhaps before the last of these
	}
	s.must(conn.Close())
}
