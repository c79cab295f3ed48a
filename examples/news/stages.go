package main

import (
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/examples/news/internal/ingest"
	"github.com/gobroadway/gobroadway/examples/news/internal/report"
	"github.com/gobroadway/gobroadway/examples/news/internal/standin"
)

// partA is the producer over the hashtag timelines, from where the last run
// stopped, to -posts in all.
func (s *system) partA(options ...ingest.ProducerOption) (*ingest.Producer, error) {
	limit := s.opts.posts - int(s.start.Settled)
	if limit == 0 {
		limit = -1 // nothing is left to do
	}
	t, err := ingest.NewTimelines(ingest.Config{
		Server: s.world.PostsURL(), Hashtags: standin.Hashtags(), After: s.start.After, Limit: limit, Transport: s.client.Transport,
	})
	if err != nil {
		return nil, err
	}
	return ingest.NewProducer(t, s.cursor, options...), nil
}

// partB is the pool that renders and publishes.
func (s *system) partB() broadway.ProcessorConfig {
	handle := broadway.Processor(s.republisher.Handle)
	if s.opts.around != nil {
		handle = s.opts.around(handle)
	}
	return broadway.ProcessorConfig{
		Handler: handle, Concurrency: s.opts.workers, MaxDemand: 2,
		Unordered: true, // posts have nothing to do with each other
	}
}

// partC is the batcher and reporter that write rows.
func (s *system) partC() broadway.BatcherConfig {
	return broadway.BatcherConfig{Size: 50, Timeout: 500 * time.Millisecond, Reporter: s.reporter.Handle}
}

// failure is what happens to posts that B or C fail for good: they are reported
// as given up. others takes what is no post.
func (s *system) failure(others broadway.DeadLetterer) broadway.FailurePolicy {
	return broadway.FailurePolicy{
		Backoff:    broadway.Backoff{Max: 2 * time.Second},
		Action:     broadway.ActionDeadLetter,
		DeadLetter: &report.DeadLetters{Reporter: s.reporter, GiveUp: s.republisher.GiveUp, Others: others},
	}
}

// reconnect is the wait after a failed call of the posts API.
func reconnect() broadway.Backoff {
	return broadway.Backoff{Initial: 100 * time.Millisecond, Max: 5 * time.Second}
}
