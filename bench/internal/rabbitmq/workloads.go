package rabbitmq

import (
	"fmt"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// Versions, as in go.mod.
const (
	clientVersion    = "1.16.0"
	watermillVersion = "1.5.1, amqp 3.0.2"
)

// Workloads are those on RabbitMQ.
func Workloads() []measure.Workload {
	return []measure.Workload{drain("rabbitmq", 500), drain("rabbitmq-2000", 2000), latency(1000), latency(10_000)}
}

func drain(name string, prefetch int) measure.Workload {
	const self, multiple = "broadway", "amqp091-go, ack multiple"
	const watermill, watermillBest = "watermill subscriber", "watermill, 2 subscriptions"
	w := measure.Workload{
		Name: name, Title: fmt.Sprintf("RabbitMQ drain, prefetch %d", prefetch),
		Does: "A classic durable queue of persistent messages is consumed, each message processed, in batches of 100 with this project, and acknowledged. " +
			"The queue is filled anew before each round, which does not count.",
		Messages: 200_000, Least: 20_000,
		Needs: measure.Needs{RabbitMQ: true},
		Systems: []measure.System{
			{Name: self, Run: pipeline(prefetch)},
			{Name: multiple, Version: clientVersion, Run: raw(prefetch, 100)},
			{Name: "amqp091-go, ack each", Version: clientVersion, Run: raw(prefetch, 1)},
			{Name: watermillBest, Version: watermillVersion, Run: watermillSubscriber(prefetch, 2)},
		},
		Targets: []measure.Target{
			{System: self, Peer: multiple, Measure: "rate", AtLeast: 0.95},
			{System: self, Peer: watermillBest, Measure: "rate", AtLeast: 1.5},
		},
	}
	if prefetch > 500 {
		return w
	}
	w.Systems = append(w.Systems,
		measure.System{Name: watermill, Version: watermillVersion, Run: watermillSubscriber(prefetch, 1)},
		measure.System{Name: "watermill router", Version: watermillVersion, Run: watermillRouter(prefetch)})
	w.Targets = append(w.Targets, measure.Target{System: self, Peer: watermill, Measure: "rate", AtLeast: 1.5})
	return w
}
