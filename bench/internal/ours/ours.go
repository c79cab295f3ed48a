// Package ours is this project's side of the workloads: the same pipeline on each source, with metrics, panic guard and contexts as
// they always are.
package ours

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
)

// BatchSize is how many messages a batch has.
const BatchSize = 100

// lastBatch is how long a batch waits to be full: what is left at the end would wait for the default, a second, and be measured.
const lastBatch = 20 * time.Millisecond

// Quiet logs nothing.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Run runs the pipeline of cfg, which has producers and whatever differs, until each message of in was reported: its handler reads it, and
// its reporter adds up batches. It returns after the last acknowledgement.
func Run(ctx context.Context, in measure.Input, cfg broadway.Config, sleep time.Duration) (measure.Output, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m, err := metrics.New(prometheus.NewRegistry(), metrics.Options{})
	if err != nil {
		return measure.Output{}, err
	}
	var count atomic.Int64
	var sum atomic.Uint64
	cfg.Processor.Handler = handler(sleep)
	cfg.Batchers = []broadway.BatcherConfig{{Size: BatchSize, Timeout: lastBatch, Reporter: func(_ context.Context, b *broadway.Batch) error {
		part := uint64(0)
		for _, m := range b.Messages {
			part += measure.Number(m.Payload)
		}
		sum.Add(part)
		if count.Add(int64(len(b.Messages))) == int64(in.Messages) {
			cancel()
		}
		return nil
	}}}
	cfg.Observer, cfg.Logger = m.Observer(), Quiet()
	p, err := broadway.New(cfg)
	if err != nil {
		return measure.Output{}, err
	}
	start := time.Now()
	err = p.Run(ctx)
	return measure.Output{Messages: int(count.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}, err
}

// errBroken is what a message that is not whole fails with: it is missed in the sum.
var errBroken = errors.New("the message is not whole")

// handler reads a message, and sleeps.
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
