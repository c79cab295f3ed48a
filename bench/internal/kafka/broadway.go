// Package kafka has the workloads on Kafka: a topic is drained through processors and batches of 100 and committed to its end.
package kafka

import (
	"context"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/ours"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// shape is what differs between pipelines; zero values are the defaults.
type shape struct {
	workers, demand int
	unordered       bool
	sleep           time.Duration
}

// pipeline is this project. Run ends after the last message has been acknowledged and committed.
func pipeline(s shape) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		return ours.Run(ctx, in, broadway.Config{
			Producers: []broadway.Producer{kafka.NewProducer(kafka.Config{
				Brokers: []string{in.Kafka}, Topics: []string{in.Topic}, Group: in.Group, Logger: ours.Quiet(),
			})},
			Processor: broadway.ProcessorConfig{Concurrency: s.workers, MaxDemand: s.demand, Unordered: s.unordered},
			Failure:   broadway.FailurePolicy{Action: broadway.ActionStopPipeline},
		}, s.sleep)
	}
}
