package inproc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wm "github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// goChannel says how Watermill's in-process channel is used. Messages have no UUID, which is for debugging only.
type goChannel struct {
	// topics are published to and read from by a goroutine each.
	topics int
	// unacked is how many batches of a topic are published before the first of them must be acknowledged. With 0 each publish waits for
	// its own acknowledgement. Without any bound all messages pile up in memory.
	unacked int
}

// run publishes in batches, reads and acknowledges.
func (g goChannel) run(ctx context.Context, in measure.Input) (measure.Output, error) {
	pubsub := gochannel.NewGoChannel(gochannel.Config{
		OutputChannelBuffer: batchSize, BlockPublishUntilSubscriberAck: g.unacked == 0,
	}, watermill.NopLogger{})
	start := time.Now()
	var sum, count atomic.Uint64
	errs := make([]error, g.topics)
	var all sync.WaitGroup
	for part := range g.topics {
		first, end := part*in.Messages/g.topics, (part+1)*in.Messages/g.topics
		name := fmt.Sprint("t", part)
		messages, err := pubsub.Subscribe(ctx, name)
		if err != nil {
			return measure.Output{}, err
		}
		var room chan struct{}
		if g.unacked > 0 {
			room = make(chan struct{}, g.unacked)
		}
		all.Go(func() {
			n, s := readTopic(messages, end-first, room)
			sum.Add(s)
			count.Add(n)
		})
		all.Go(func() { errs[part] = publishTopic(pubsub, name, first, end, room) })
	}
	all.Wait()
	out := measure.Output{Messages: int(count.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}
	for _, err := range errs {
		if err != nil {
			return out, err
		}
	}
	return out, pubsub.Close()
}

func readTopic(messages <-chan *wm.Message, want int, room <-chan struct{}) (n, sum uint64) {
	for range want {
		m := <-messages
		sum += measure.Read(m.Payload)
		m.Ack()
		if n++; room != nil && n%batchSize == 0 {
			<-room
		}
	}
	return n, sum
}

func publishTopic(to *gochannel.GoChannel, topic string, first, end int, room chan<- struct{}) error {
	for at := first; at < end; at += batchSize {
		n := min(batchSize, end-at)
		slab := measure.Slab(at, n)
		batch := make([]*wm.Message, n)
		for i := range batch {
			batch[i] = wm.NewMessage("", slab[i*measure.Payload:(i+1)*measure.Payload])
		}
		if room != nil {
			room <- struct{}{}
		}
		if err := to.Publish(topic, batch...); err != nil {
			return err
		}
	}
	return nil
}
