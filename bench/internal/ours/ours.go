// Package ours is this project's side of the workloads: the same pipeline on each source, with metrics, panic guard and contexts as
// they always are.
package ours

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/metrics"
)

// BatchSize is how many messages a batch has.
const BatchSize = 100

// lastBatch is how long a batch waits to be full: what is left at the end would wait for the default, a second, and be measured.
const lastBatch = 20 * time.Millisecond

// Quiet logs nothing.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Run runs the pipeline of cfg, which has producers and whatever differs (a handler and a batcher's size, for example), until each message of in was reported: its handler reads it, and
// its reporter adds up batches. It returns after the last acknowledgement.
func Run(ctx context.Context, in measure.Input, cfg broadway.Config, sleep time.Duration) (measure.Output, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var count atomic.Int64
	var sum atomic.Uint64
	if cfg.Processor.Handler == nil {
		cfg.Processor.Handler = Handler(measure.Payload, sleep)
	}
	if len(cfg.Batchers) == 0 {
		cfg.Batchers = []broadway.BatcherConfig{{Size: BatchSize}}
	}
	batcher := &cfg.Batchers[0]
	batcher.Timeout, batcher.Reporter = lastBatch, func(_ context.Context, b *broadway.Batch) error {
		part := uint64(0)
		for _, m := range b.Messages {
			part += measure.Number(m.Payload)
		}
		sum.Add(part)
		if count.Add(int64(len(b.Messages))) == int64(in.Messages) {
			cancel()
		}
		return nil
	}
	p, err := pipeline(cfg)
	if err != nil {
		return measure.Output{}, err
	}
	start := time.Now()
	err = p.Run(ctx)
	out := measure.Output{Messages: int(count.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}
	out.Flight = p.Stats().HighestUnsettledBytes
	return out, err
}

// Until runs the pipeline of cfg, whose handler is given, until done is closed and it has drained.
func Until(ctx context.Context, cfg broadway.Config, done <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := pipeline(cfg)
	if err != nil {
		return err
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	})
	err = p.Run(ctx)
	cancel()
	waiting.Wait()
	return err
}

// pipeline is that of cfg, with metrics and a log that is dropped.
func pipeline(cfg broadway.Config) (*broadway.Pipeline, error) {
	m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		return nil, err
	}
	cfg.Observer, cfg.Logger = m.Observer(), Quiet()
	return broadway.New(cfg)
}

// errBroken is what a message that is not whole fails with: it is missed in the sum.
var errBroken = errors.New("the message is not whole")

// Handler reads a message of size bytes, and sleeps.
func Handler(size int, sleep time.Duration) broadway.Processor {
	return func(_ context.Context, m *broadway.Message) error {
		if measure.ReadOf(m.Payload, size) == 0 {
			return broadway.Reject(errBroken)
		}
		if sleep > 0 {
			time.Sleep(sleep)
		}
		return nil
	}
}
