package main

import (
	"context"

	"github.com/gobroadway/gobroadway/broadway"
)

// direct is one pipeline: A, B, C.
type direct struct{ news *broadway.Pipeline }

func newDirect(s *system) (*direct, error) {
	a, err := s.partA()
	if err != nil {
		return nil, err
	}
	p, err := broadway.New(broadway.Config{
		Name:             "news",
		Producers:        []broadway.Producer{a},
		Processor:        s.partB(),
		Batchers:         []broadway.BatcherConfig{s.partC()},
		Failure:          s.failure(nil),
		ReconnectBackoff: reconnect(),
		Logger:           s.logger,
		Observer:         s.metrics.Observer(),
	})
	return &direct{p}, err
}

func (d *direct) run(ctx context.Context) error { return d.news.Run(ctx) }

func (d *direct) pipelines() []*broadway.Pipeline { return []*broadway.Pipeline{d.news} }

func (d *direct) queues() []queueUse { return pipelineQueues(d.news) }

func (d *direct) close() error { return nil }
