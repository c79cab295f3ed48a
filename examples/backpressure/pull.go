package main

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/gobroadway/gobroadway/broadway"
)

// pulled runs the costs in a pipeline: C asks B, B asks A, and only then is the
// API called.
func pulled(ctx context.Context, o options) (result, error) {
	c := &costs{unit: o.unit, offered: o.posts}
	p, err := broadway.New(broadway.Config{
		Name:      "pulled",
		Producers: []broadway.Producer{&api{costs: c, ref: broadway.NewAckRef(nobody{}, nil, 0)}},
		Processor: broadway.ProcessorConfig{
			Concurrency: workers,
			Handler:     func(ctx context.Context, _ *broadway.Message) error { return c.republish(ctx) },
		},
		Batchers: []broadway.BatcherConfig{{
			Size:     reportBatch,
			Reporter: func(ctx context.Context, b *broadway.Batch) error { return c.report(ctx, len(b.Messages)) },
		}},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return result{}, err
	}
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	var samples []sample
	watcher.Go(func() { samples = c.watch(func() int { return p.Stats().Unsettled }, stop) })
	err = p.Run(ctx)
	close(stop)
	watcher.Wait()
	st := p.Stats()
	return c.result(samples, st.HighestUnsettled, st.MaxUnsettled), err
}

// api is a producer over the API: one call for each Fetch, of what was asked for.
type api struct {
	costs *costs
	ref   *broadway.AckRef
	next  int64
}

// Fetch calls the API for up to d.Messages posts.
func (a *api) Fetch(ctx context.Context, d broadway.Demand) ([]*broadway.Message, error) {
	n := a.ref.Take(a.costs.fetch(ctx, d.Messages))
	if n == 0 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, io.EOF
	}
	posts := make([]*broadway.Message, n)
	for i := range posts {
		posts[i] = broadway.NewMessage(a.ref, a.next, nil)
		a.next++
	}
	return posts, nil
}

// Close has nothing to close.
func (a *api) Close() error { return nil }

// nobody is told of settled posts: the API keeps no account of them.
type nobody struct{}

// Ack does nothing.
func (nobody) Ack(context.Context, *broadway.AckRef, []*broadway.Message, []*broadway.Message) error {
	return nil
}
