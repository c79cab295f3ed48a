// Package kafka has the workloads on Kafka: a topic is drained through processors and batches of 100 and committed to its end.
package kafka

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// shape is what differs between pipelines; zero values are the defaults.
type shape struct {
	workers, demand, unsettled int
	unordered                  bool
	sleep                      time.Duration
}

var errBroken = errors.New("the message is not whole")

// pipeline is this project. Run ends after the last message has been acknowledged and committed.
func pipeline(s shape) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		quiet := slog.New(slog.DiscardHandler)
		m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
		if err != nil {
			return measure.Output{}, err
		}
		var t tally
		p, err := broadway.New(broadway.Config{
			Producers: []broadway.Producer{kafka.NewProducer(kafka.Config{
				Brokers: []string{in.Kafka}, Topics: []string{in.Topic}, Group: in.Group, Logger: quiet,
			})},
			Processor: broadway.ProcessorConfig{
				Concurrency: s.workers, MaxDemand: s.demand, Unordered: s.unordered, Handler: handler(s.sleep),
			},
			Batchers: []broadway.BatcherConfig{{Size: 100, Reporter: func(_ context.Context, b *broadway.Batch) error {
				sum := uint64(0)
				for _, m := range b.Messages {
					sum += measure.Number(m.Payload)
				}
				t.add(len(b.Messages), sum)
				if t.messages() == in.Messages {
					cancel()
				}
				return nil
			}}},
			MaxUnsettled: s.unsettled,
			Failure:      broadway.FailurePolicy{Action: broadway.ActionStopPipeline},
			Observer:     m.Observer(),
			Logger:       quiet,
		})
		if err != nil {
			return measure.Output{}, err
		}
		start := time.Now()
		err = p.Run(ctx)
		return t.output(start), err
	}
}

func handler(sleep time.Duration) broadway.Processor {
	return func(_ context.Context, m *broadway.Message) error {
		if measure.Read(m.Payload) == 0 {
			return broadway.Reject(errBroken)
		}
		if sleep > 0 {
			time.Sleep(sleep)
		}
		return nil
	}
}
