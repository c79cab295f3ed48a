package rabbitmq

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

var errBroken = errors.New("the message is not whole")

// pipeline is this project, in batches of 100. Run ends after the last acknowledgement.
func pipeline(prefetch int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		quiet := slog.New(slog.DiscardHandler)
		m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
		if err != nil {
			return measure.Output{}, err
		}
		var count atomic.Int64
		var sum atomic.Uint64
		p, err := broadway.New(broadway.Config{
			Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{
				URL: in.RabbitMQ, Queue: in.Queue, Prefetch: prefetch, Logger: quiet,
			})},
			Processor: broadway.ProcessorConfig{Handler: func(_ context.Context, m *broadway.Message) error {
				if measure.Read(m.Payload) == 0 {
					return broadway.Reject(errBroken)
				}
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 100, Reporter: func(_ context.Context, b *broadway.Batch) error {
				for _, m := range b.Messages {
					sum.Add(measure.Number(m.Payload))
				}
				if count.Add(int64(len(b.Messages))) == int64(in.Messages) {
					cancel()
				}
				return nil
			}}},
			MaxUnsettled: prefetch,
			Failure:      broadway.FailurePolicy{Action: broadway.ActionReject},
			Observer:     m.Observer(),
			Logger:       quiet,
		})
		if err != nil {
			return measure.Output{}, err
		}
		start := time.Now()
		err = p.Run(ctx)
		return measure.Output{Messages: int(count.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}, err
	}
}
