package broadway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/memory"
)

// logBook is a log that may be written by many.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// reluctant is a publisher that takes nothing at first.
type reluctant struct {
	*memory.Queue
	until time.Time
}

func (r reluctant) Publish(ctx context.Context, records ...broadway.Record) error {
	if time.Now().Before(r.until) {
		return errors.New("no")
	}
	return r.Queue.Publish(ctx, records...)
}

// TestNothingOfAMessageIsLogged: messages fail in every way, at the level debug,
// and neither the log, nor Stats, nor Run's error has anything of a payload, a key
// or a header.
func TestNothingOfAMessageIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const canary, n = "canary-51c2", 60
		queue, dead, book := memory.NewQueue(memory.QueueConfig{}), memory.NewQueue(memory.QueueConfig{}), &logBook{}
		for i := range n {
			record := broadway.Record{
				Payload: fmt.Appendf(nil, "%d \x1b[31m\r\nlevel=ERROR %s", i, canary), Key: fmt.Appendf(nil, "%s-%d", canary, i),
				Headers: []broadway.Header{{Key: "h", Value: []byte(canary)}},
			}
			if i%10 == 9 {
				record.Payload = append(record.Payload, make([]byte, 200)...)
			}
			if err := queue.Publish(t.Context(), record); err != nil {
				t.Fatal(err)
			}
		}
		queue.CloseInput()
		letters := reluctant{dead, time.Now().Add(time.Minute)}
		p := build(t, broadway.Config{
			Producers:     []broadway.Producer{memory.New(memory.Config{Queue: queue})},
			Logger:        slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug})),
			MessageLimits: broadway.MessageLimits{Payload: 100},
			Processor: broadway.ProcessorConfig{Concurrency: 3, Timeout: time.Second, Handler: func(ctx context.Context, m *broadway.Message) error {
				m.Value = m.Payload
				switch m.Payload[0] % 5 {
				case 0:
					panic(errFail)
				case 1:
					<-ctx.Done()
				case 2:
					return broadway.Reject(errFail)
				case 3:
					m.Batcher = "nowhere"
				}
				return nil
			}},
			Batchers: []broadway.BatcherConfig{{Size: 3, Reporter: func(context.Context, *broadway.Batch) error { panic(errFail) }}},
			Failure: broadway.FailurePolicy{
				MaxAttempts: 2, Action: broadway.ActionDeadLetter, DeadLetter: &acknowledgers.DeadLetters{Publisher: letters},
			},
		})
		var seen strings.Builder
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context()) }()
		for range 10 {
			time.Sleep(10 * time.Second)
			fmt.Fprintf(&seen, "%+v %v\n", p.Stats(), p.Stats().Err)
		}
		err := <-ended
		fmt.Fprintf(&seen, "%v %+v", err, p.Stats())
		if st := p.Stats(); st.DeadLettered != n || !strings.Contains(book.String(), "dead letters are not confirmed") {
			t.Errorf("%d dead letters, and a log of %d bytes", st.DeadLettered, len(book.String()))
		}
		for where, text := range map[string]string{"the log": book.String(), "Stats": seen.String()} {
			if strings.Contains(text, canary) || strings.Contains(text, "\x1b") {
				t.Errorf("a message is in %s:\n%s", where, text)
			}
		}
	})
}
