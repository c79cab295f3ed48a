package rabbitmq

import (
	"context"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/bench/internal/ours"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// pipeline is this project. Run ends after the last acknowledgement.
func pipeline(prefetch int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		return ours.Run(ctx, in, broadway.Config{
			Producers: []broadway.Producer{rabbitmq.NewProducer(rabbitmq.Config{
				URL: in.RabbitMQ, Queue: in.Queue, Prefetch: prefetch, Logger: ours.Quiet(),
			})},
			MaxUnsettled: prefetch,
			Failure:      broadway.FailurePolicy{Action: broadway.ActionReject},
		}, 0)
	}
}
