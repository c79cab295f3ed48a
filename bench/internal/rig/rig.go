// Package rig has the brokers that workloads drain. They are started when the first workload needs them, on loopback.
package rig

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/brokers"
)

// Rig is the brokers of one run.
type Rig struct {
	host   *brokers.Host
	kafka  *kafka
	rabbit *rabbitmq
	groups int
	run    string // in the names of topics and groups: a broker may serve several runs
}

var _ measure.Rig = (*Rig)(nil)

// New makes a rig that has started nothing yet.
func New(logf func(string, ...any)) *Rig {
	return &Rig{host: brokers.NewHost("bench", logf), run: strconv.FormatInt(time.Now().UnixNano(), 36)}
}

// Close ends what was started.
func (r *Rig) Close() error { return r.host.Close() }

// Prepare makes what one round of w drains: the topic of the workload, filled once, and a new group; or the queue, filled again. What is to
// be empty is a new topic, or the queue.
func (r *Rig) Prepare(ctx context.Context, w measure.Workload, messages int) (measure.Input, error) {
	var in measure.Input
	switch {
	case w.Needs.Kafka:
		if r.kafka == nil {
			k, err := startKafka(r.host)
			if err != nil {
				return in, err
			}
			r.kafka = k
		}
		r.groups++
		topic, err := r.kafka.prepare(ctx, r.run, w.Needs, messages, r.groups)
		if err != nil {
			return in, err
		}
		in.Kafka, in.Topic, in.Group = r.kafka.addr, topic, fmt.Sprintf("bench-%s-%s-%d", r.run, w.Name, r.groups)
	case w.Needs.RabbitMQ:
		if r.rabbit == nil {
			b, err := startRabbitMQ(r.host)
			if err != nil {
				return in, err
			}
			r.rabbit = b
		}
		if w.Needs.Empty {
			messages = 0
		}
		if err := r.rabbit.fill(ctx, messages); err != nil {
			return in, err
		}
		in.RabbitMQ, in.Queue = r.rabbit.url, queue
	}
	return in, nil
}

// Settled asks whether the round's group has committed its topic to the end, or its queue is empty.
func (r *Rig) Settled(ctx context.Context, in measure.Input) error {
	switch {
	case in.Group != "":
		return r.kafka.committed(ctx, in.Group, in.Topic)
	case in.Queue != "":
		return r.rabbit.empty(ctx)
	}
	return nil
}
