package kafka_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// suspect has two members die of the first message of a topic, so that it is tried
// alone by the next.
func suspect(t *testing.T, cfg kafka.Config, gone func() error) {
	t.Helper()
	for range 2 {
		source, out := kafka.NewProducer(cfg), newSink()
		p := pipeline(source, out)
		entered := make(chan bool, 100)
		p.Processor.Handler = func(ctx context.Context, _ *broadway.Message) error {
			entered <- true
			<-ctx.Done()
			return ctx.Err()
		}
		r := run(t, p)
		receive(t, entered)
		source.Kill()
		r.Abort()
		<-r.done
		if err := gone(); err != nil {
			t.Fatal(err)
		}
	}
}

// A member that is lost by its group while it tries a message alone, again and
// again, comes back: the message is not given up.
func TestWhoComesBackDidNotDie(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(2, "t"))
	cfg := f.config(t, "t")
	evicted := func() error { return evictClient(t.Context(), f.ListenAddrs(), "g", "") }
	for i := range 6 {
		f.produce(t, "t", fmt.Sprint("m-", 2*i), 2*i, 2*i+1, 2) // all in partition 0
	}
	suspect(t, cfg, evicted)

	const most = 3
	out, open := newSink(), make(chan struct{})
	opens := sync.OnceFunc(func() { close(open) })
	t.Cleanup(opens)
	type entry struct{ member, attempt int }
	entered := make(chan entry, 100)
	dead := make(chan string, 100)
	var runs []*running
	for i := range 2 {
		p := pipeline(kafka.NewProducer(cfg), out)
		p.Processor.Concurrency, p.Processor.Unordered = 50, true
		p.Processor.Handler = func(ctx context.Context, m *broadway.Message) error {
			if m.Metadata.(*kafka.Metadata).Offset == 0 {
				entered <- entry{i, m.Attempt}
				<-open
			}
			return out.handle(ctx, m)
		}
		p.Failure = broadway.FailurePolicy{MaxAttempts: most, Action: broadway.ActionDeadLetter, DeadLetter: deadTo(dead)}
		runs = append(runs, run(t, p))
	}
	var attempts []int
	var lost [2]bool
	for range 10 {
		e := receive(t, entered)
		attempts = append(attempts, e.attempt)
		eventually(t, "the other one says that it lives", func() error {
			info := f.GroupInfo("g")
			if in, err := kafka.WrittenIn(info.Commits["t"][1].Metadata); lost[1-e.member] && len(info.Members) == 2 && (err != nil || in != info.Epoch) {
				return fmt.Errorf("written in generation %d of %d, %v", in, info.Epoch, err)
			}
			return nil
		})
		lost[e.member] = true
		if err := evicted(); err != nil {
			t.Fatal(err)
		}
	}
	opens()
	eventually(t, "all", out.has(6))
	eventually(t, "committed", f.wantCommitted("t", 6))
	for _, r := range runs {
		r.stop(t)
	}
	for _, n := range attempts {
		if n > 2 { // the last one may not have been heard of yet
			t.Errorf("attempts %v, although nobody died", attempts)
			break
		}
	}
	if len(dead) > 0 {
		t.Errorf("%s was given up", <-dead)
	}
}

// receive waits for what must come.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("it does not come")
		panic("unreachable")
	}
}

// deadTo confirms dead letters, and tells of them.
type deadTo chan<- string

func (c deadTo) DeadLetter(_ context.Context, messages []*broadway.Message) error {
	for _, m := range messages {
		c <- string(m.Payload)
	}
	return nil
}
