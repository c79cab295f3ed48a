package inproc

import (
	"context"
	"io"
	"time"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/broadway/stage"
)

// numbers makes chunks of 1, 2, 3, … as they are asked for.
func numbers(n int) func(context.Context, int) ([]uint64, error) {
	at := 0
	return func(_ context.Context, demand int) ([]uint64, error) {
		if at == n {
			return nil, io.EOF
		}
		chunk := make([]uint64, min(demand, n-at))
		for i := range chunk {
			at++
			chunk[i] = uint64(at)
		}
		return chunk, nil
	}
}

// stages moves numbers, as GenStage's figures do, from a producer to a consumer, through so many stages between.
func stages(demand, between int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		var out measure.Output
		producer, err := stage.NewProducer("producer", numbers(in.Messages), stage.Options[uint64]{})
		if err != nil {
			return out, err
		}
		consumer, err := stage.NewConsumer("consumer", func(_ context.Context, events []uint64) error {
			for _, e := range events {
				out.Sum += e
			}
			out.Messages += len(events)
			return nil
		})
		if err != nil {
			return out, err
		}
		all := []stage.Stage{producer, consumer}
		var from stage.Source[uint64] = producer
		for range between {
			same, err := stage.NewProducerConsumer("between", pass, stage.Options[uint64]{})
			if err != nil {
				return out, err
			}
			if _, err := stage.Subscribe(same, from, stage.Demand(demand)); err != nil {
				return out, err
			}
			from, all = same, append(all, same)
		}
		if _, err := stage.Subscribe(consumer, from, stage.Demand(demand)); err != nil {
			return out, err
		}
		start := time.Now()
		err = stage.Run(ctx, all...)
		out.Elapsed = time.Since(start)
		return out, err
	}
}

func pass(_ context.Context, events []uint64) ([]uint64, error) { return events, nil }

// channelNumbers is the same over one bare channel, in slices of size.
func channelNumbers(size int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		made := make(chan []uint64, 2)
		go func() {
			defer close(made)
			next := numbers(in.Messages)
			for {
				chunk, err := next(ctx, size)
				if err != nil {
					return
				}
				made <- chunk
			}
		}()
		var out measure.Output
		for chunk := range made {
			for _, e := range chunk {
				out.Sum += e
			}
			out.Messages += len(chunk)
		}
		out.Elapsed = time.Since(start)
		return out, nil
	}
}
