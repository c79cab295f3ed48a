// Package rabbitmq consumes a RabbitMQ queue by demand, and publishes to
// RabbitMQ with confirms.
//
//	producer := rabbitmq.NewProducer(rabbitmq.Config{
//		URL:     "amqp://user:password@localhost:5672/",
//		Queue:   "orders",
//		Declare: &rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum, DeadLetterRoutingKey: "orders-dead"},
//	})
//
// # Demand
//
// RabbitMQ pushes, up to the prefetch: a standing reservation that counts as
// fetched. It is never unlimited, it is never more than the pipeline's bound,
// and a message counts from its delivery to its acknowledgement. (A session begins
// with one message that it asks for by itself, which comes on top.) The prefetch
// bounds a number of messages; their bytes are bounded by this source's part of
// MaxUnsettledBytes, and one message more: see Config.Prefetch.
//
// # Settling
//
//	outcome                                  frame
//	succeeded, dropped, dead-lettered        basic.ack
//	failed, ActionReject                     basic.reject, requeue false
//	failed, ActionRequeue                    basic.reject, requeue true
//	failed, ActionRequeueOnce                basic.reject, requeue unless redelivered
//	released (not processed)                 basic.nack, requeue true
//
// Failed and not processed are different frames because RabbitMQ tells them
// apart from 4.3 on: a reject counts towards the delivery limit of a quorum
// queue, a nack does not. Before 4.3 both count.
//
// Acknowledgements are sent together, as "multiple" where everything before is
// settled: after a quarter of the prefetch, after 5 ms, or at once when nothing
// else is unsettled. An acknowledgement is sent, not done: the broker does not
// confirm it. What a connection takes with it is delivered again, so at most
// one prefetch window is repeated for each connection that is lost. (A broker
// that is killed may repeat more from a classic queue: it keeps acknowledgements
// in memory for a while. A quorum queue does not; but while it is behind, RabbitMQ
// forgets acknowledgements that came shortly before their channel was closed, see
// https://github.com/rabbitmq/rabbitmq-server/issues/10327: then even a stop in good
// order repeats what was acknowledged last.)
//
// # Sessions
//
// A session is a connection, a channel and an epoch. It is never reborn: when
// its consumer, channel or connection is gone, the epoch ends, a settle of one
// of its messages is counted and never sent (delivery tags start again from 1,
// so it would settle another message), and a new session takes its place, with
// topology and prefetch set up again. There is no end to reconnecting: at once
// the first time, then after 1 s to 30 s. A session that settled nothing counts
// as a failed attempt.
//
// The connection, its channels and all methods are amqp091-go's. Deliveries it does not
// see: they are put together from the frames where the socket is read, many at a time.
//
// AMQP has no checksum. What is changed on its way and does not look like what it
// should ends the session, and so does a delivery that is missing, as delivery tags
// rise by one; but a byte changed within a body arrives so. TLS finds it; without, a
// handler that verifies its messages can have them again by ActionRequeue.
//
// # Pause and stop
//
// Pausing and draining cancel the consumer, take in what is still on its way,
// and hand back what was never fetched. With a single active consumer
// ([QueueDeclare.SingleActiveConsumer]) a cancel would start the next consumer
// while this one still works, and order would be lost. So nothing is cancelled:
// the messages that were fetched are finished and acknowledged, and then
// closing the channel hands back the rest, in place, and makes the next
// consumer active.
//
// # Messages that kill the process
//
// A quorum queue counts how often a message came back from a consumer that was
// lost (x-delivery-count). The count says nothing about why: the messages beside
// the one that killed the process come back with it, and before RabbitMQ 4.3 so
// does what a stop hands back. So what came back twice is a suspect, and is tried
// while the process has no other message; and what came back five times counts
// with all of them as [broadway.Message.Attempt], so that the failure policy gives
// it up unhandled once that is more than MaxAttempts. A MaxAttempts below five
// therefore means five processes. Sessions that were lost while the process
// lived, and what it gave back itself, are no attempts: for ten minutes after
// either it does not count. Nor does it when its pipeline requeues what failed. And
// it counts for one message in ten minutes only: what makes many come back often is
// no message among them.
//
// So a message that harms nobody is given up unhandled only if it was the first of
// a process's life and had come back five times: alone, over and over, on a link
// that is lost before anything is settled; with several messages that kill in one
// prefetch window; or, before 4.3, given back by stops of other processes. It is
// then in the dead letters, and can be put back.
//
// Suspects that came to a consumer with others are handed back, all but one. A
// quorum queue without a delivery limit puts what is handed back at its end, so they
// come again behind everything else; with one they stay near its head.
//
// With an x-delivery-limit the broker takes messages away itself. It must lie above
// what is counted here, and needs a dead letter exchange, or messages are dropped:
// RabbitMQ 4 has a limit of 20 where nothing is said. Of a queue that is declared
// here a limit below five, or one without such an exchange, is a mistake in the
// Config; the limit of another cannot be asked for.
//
// # Headers that the client cannot read
//
// The client ends the connection over a header table that is nested deeper than 32,
// or has more than 8,192 elements, and would at each delivery anew. So such parts
// are given to it as bytes: the value is a []byte, with what the table or array was
// on the wire, and so it is in a dead letter. When it is the headers as a whole, they
// are one, "x-unreadable-headers". [Stats.Flattened] counts.
//
// # What is not covered
//
// Classic queues tell one bit about earlier deliveries: a message that kills
// the process each time comes back for ever, and takes the process with it, until
// somebody takes it out of the queue. So it is with a single active consumer, or an
// exclusive one, whose prefetch is above 1: to try a message alone its turn would
// have to be given away. Streams are refused: they need offsets, not
// acknowledgements.
//
// RabbitMQ 4 itself was not run: what it does otherwise is taken from its
// documentation, and played by a server in the tests (a cancel when an
// acknowledgement takes too long, and what counts as a delivery).
package rabbitmq
