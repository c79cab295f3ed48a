// Package rabbitmq consumes a RabbitMQ queue by demand, and publishes to
// RabbitMQ with confirms.
//
//	producer := rabbitmq.NewProducer(rabbitmq.Config{
//		URL:     "amqp://user:password@localhost:5672/",
//		Queue:   "orders",
//		Declare: &rabbitmq.QueueDeclare{Durable: true, Type: rabbitmq.Quorum},
//	})
//
// # Demand
//
// RabbitMQ pushes, up to the prefetch: a standing reservation that counts as
// fetched. It is never unlimited, it is never more than the pipeline's bound,
// and a message counts from its delivery to its acknowledgement. The prefetch
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
// in memory for a while. A quorum queue does not.)
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
// # What is not covered
//
// Classic queues tell one bit about earlier deliveries: a message that kills
// the process each time comes back for ever. Quorum queues count, see
// [Metadata.DeliveryCount]. Streams are refused: they need offsets, not
// acknowledgements.
package rabbitmq
