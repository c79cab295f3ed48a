package main

import (
	"context"

	"github.com/gobroadway/gobroadway/broadway"
)

// queue is what may stand between A and B.
type queue interface {
	// publisher is A's end.
	publisher() broadway.Publisher
	// source is B's end: a new one for each call.
	source() broadway.Producer
	// deadLetters is a place for messages that hold no post.
	deadLetters() broadway.DeadLetterer
	// waiting is how many messages lay in the queue, not committed, when it was
	// opened: a run that was killed left them.
	waiting() int
	// committed is how many messages were committed since.
	committed(ctx context.Context) (int64, error)
	// settled tells that so many messages were acknowledged.
	settled(n int)
	// forgets says that what is in the queue goes with this process.
	forgets() bool
	// place says where it is, without secrets.
	place() string
	close() error
}

// openQueue opens the queue of this database: a topic or queue of its own.
func openQueue(ctx context.Context, s *system) (queue, error) {
	name := "news-" + s.name
	switch s.opts.queue {
	case queueEmbedded:
		return openEmbedded(ctx, s, name)
	case queueKafka:
		return openKafka(ctx, s, name)
	}
	return openRabbitMQ(ctx, s, name)
}
