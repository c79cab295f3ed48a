package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
)

// queued is two pipelines with a queue between them. A's own pipeline settles a
// post when the queue has confirmed it, so its bound alone would not feel how
// slow B is; the window does: its credit comes back when B's pipeline has
// committed.
//
//	posts API ─▶ A ─▶ publish ─▶ queue ─▶ B ─▶ C ─▶ rows
//	             ▲                         committed │
//	             └────────── window ◀────────────────┘
type queued struct {
	queue  queue
	window *ingest.Window
	ingest *broadway.Pipeline
	news   *broadway.Pipeline
}

func newQueued(ctx context.Context, s *system) (*queued, error) {
	q, err := openQueue(ctx, s)
	if err != nil {
		return nil, err
	}
	f := &queued{queue: q}
	f.window = ingest.NewWindow(8*s.opts.workers, q.waiting())
	if err := f.build(s); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return f, nil
}

func (f *queued) build(s *system) error {
	options := []ingest.ProducerOption{ingest.WithWindow(f.window)}
	if f.queue.forgets() {
		options = append(options, ingest.CursorElsewhere())
	}
	a, err := s.partA(options...)
	if err != nil {
		return err
	}
	f.ingest, err = broadway.New(broadway.Config{
		Name:      "ingest",
		Producers: []broadway.Producer{a},
		Processor: broadway.ProcessorConfig{
			Handler: func(context.Context, *broadway.Message) error { return nil }, Concurrency: 1, MaxDemand: 40,
		},
		Batchers:         []broadway.BatcherConfig{{Size: 40, Timeout: 20 * time.Millisecond, Reporter: publishTo(f.queue.publisher())}},
		Failure:          broadway.FailurePolicy{Action: broadway.ActionStopPipeline},
		ReconnectBackoff: reconnect(),
		Logger:           s.logger,
		Observer:         s.metrics.Observer(),
	})
	if err != nil {
		return err
	}
	f.news, err = broadway.New(broadway.Config{
		Name:      "news",
		Producers: []broadway.Producer{f.queue.source()},
		Processor: s.partB(),
		Batchers:  []broadway.BatcherConfig{s.partC()},
		Failure:   s.failure(f.queue.deadLetters()),
		FailFast:  true,
		Logger:    s.logger,
		Observer:  told{Observer: s.metrics.Observer(), settled: f.queue.settled},
	})
	return err
}

// publishTo is a reporter that puts posts into a queue.
func publishTo(p broadway.Publisher) broadway.Reporter {
	return func(ctx context.Context, b *broadway.Batch) error {
		records := make([]broadway.Record, len(b.Messages))
		for i, m := range b.Messages {
			records[i] = broadway.Record{ID: m.ID(), Key: []byte(m.ID()), Payload: m.Payload}
		}
		err := p.Publish(ctx, records...)
		var partly *broadway.PublishError
		if !errors.As(err, &partly) {
			return broadway.Unavailable(err)
		}
		failures := new(broadway.BatchError)
		for i, err := range partly.Errs {
			if err != nil { // whatever it is, the post can wait; twice in the queue is once published
				failures.Fail(b.Messages[i], broadway.Unavailable(err))
			}
		}
		return failures.Err()
	}
}

// told is an Observer that tells a queue what was acknowledged.
type told struct {
	broadway.Observer
	settled func(n int)
}

// Settled tells both.
func (t told) Settled(e broadway.SettleEvent) {
	t.Observer.Settled(e)
	if e.Err == nil {
		t.settled(e.Succeeded + e.Failed + e.DeadLettered)
	}
}

// Retrying is passed on, if anybody wants it.
func (t told) Retrying(pipeline, stage string, m *broadway.Message, wait time.Duration, err error) {
	if r, ok := t.Observer.(broadway.RetryObserver); ok {
		r.Retrying(pipeline, stage, m, wait, err)
	}
}

// run ends A first, at its last post or with ctx; B and C go on until the queue is
// empty.
func (f *queued) run(ctx context.Context) error {
	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	first, stopFirst := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var newsErr error
	wg.Go(func() {
		newsErr = f.news.Run(rest)
		stopFirst() // alone, A would fill the queue and wait for ever
		stop()
	})
	wg.Go(func() { f.follow(rest) })
	ingestErr := f.ingest.Run(first)
	if ingestErr == nil {
		_ = f.window.Empty(rest) // it fails only when B has ended already, and says why
	}
	stop()
	wg.Wait()
	stopFirst()
	return errors.Join(ingestErr, newsErr)
}

// commitPoll is how often the broker is asked what was committed.
const commitPoll = 50 * time.Millisecond

// follow gives the window back what is committed, until ctx ends.
func (f *queued) follow(ctx context.Context) {
	ticker := time.NewTicker(commitPoll)
	defer ticker.Stop()
	var last int64
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now, err := f.queue.committed(ctx)
		if err != nil || now <= last {
			continue // the next one will tell
		}
		f.window.Return(int(now - last))
		last = now
	}
}

func (f *queued) pipelines() []*broadway.Pipeline { return []*broadway.Pipeline{f.ingest, f.news} }

func (f *queued) queues() []queueUse {
	between := queueUse{Name: "queue between A and B", Highest: f.window.Highest(), Bound: f.window.Bound()}
	return append(append(pipelineQueues(f.ingest), between), pipelineQueues(f.news)...)
}

func (f *queued) close() error { return f.queue.close() }
