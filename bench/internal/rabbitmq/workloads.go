package rabbitmq

import "github.com/gobroadway/gobroadway/bench/internal/measure"

// Workloads are those on RabbitMQ.
func Workloads() []measure.Workload {
	const prefetch = 500
	const self, multiple, watermill = "broadway", "amqp091-go, ack multiple", "watermill subscriber"
	drain := measure.Workload{
		Name: "rabbitmq", Title: "RabbitMQ drain, prefetch 500",
		Does: "A classic durable queue of persistent messages is consumed, each message processed, in batches of 100 with this project, and acknowledged. " +
			"The queue is filled anew before each round, which does not count.",
		Messages: 200_000, Least: 20_000,
		Needs: measure.Needs{RabbitMQ: true},
		Systems: []measure.System{
			{Name: self, Run: pipeline(prefetch)},
			{Name: multiple, Version: "1.16.0", Run: raw(prefetch, 100)},
			{Name: "amqp091-go, ack each", Version: "1.16.0", Run: raw(prefetch, 1)},
			{Name: watermill, Version: "3.0.2", Run: watermillSubscriber(prefetch)},
		},
		Targets: []measure.Target{
			{System: self, Peer: multiple, Measure: "rate", AtLeast: 0.95},
			{System: self, Peer: watermill, Measure: "rate", AtLeast: 1.5},
		},
	}
	return []measure.Workload{drain, latency(1000), latency(10_000)}
}
