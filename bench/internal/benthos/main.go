// Command benthos is the side of Benthos, a program of its own: 4 MB that its packages make as they are initialised stay in memory, and
// make the collector of whatever is linked with them run half as often where little is in use.
//
//	benthos SIZE THREADS COLLECT INFLIGHT <input >output
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure" // the pipeline's processors
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benthos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("four numbers are needed: see internal/inproc")
	}
	var n [4]int
	for i, arg := range args {
		var err error
		if n[i], err = strconv.Atoi(arg); err != nil {
			return err
		}
	}
	one := shape{size: n[0], threads: n[1], collect: n[2], inFlight: n[3]}
	return measure.RunChild(ctx, measure.System{Run: one.run})
}

// input makes batches of size messages.
type input struct {
	at, end, size int
	done          *atomic.Uint64
}

// Connect does nothing.
func (b *input) Connect(context.Context) error { return nil }

// Close does nothing.
func (b *input) Close(context.Context) error { return nil }

// ReadBatch makes the next batch.
func (b *input) ReadBatch(context.Context) (service.MessageBatch, service.AckFunc, error) {
	n := min(b.size, b.end-b.at)
	if n == 0 {
		return nil, nil, service.ErrEndOfInput
	}
	slab := measure.Slab(b.at, n)
	batch := make(service.MessageBatch, n)
	for i := range batch {
		batch[i] = service.NewMessage(slab[i*measure.Payload : (i+1)*measure.Payload])
	}
	b.at += n
	return batch, func(_ context.Context, err error) error {
		if err == nil {
			b.done.Add(uint64(n))
		}
		return nil
	}, nil
}

// output sums batches.
type output struct{ sum *atomic.Uint64 }

// Connect does nothing.
func (b output) Connect(context.Context) error { return nil }

// Close does nothing.
func (b output) Close(context.Context) error { return nil }

// WriteBatch adds up a batch.
func (b output) WriteBatch(_ context.Context, batch service.MessageBatch) error {
	sum := uint64(0)
	for _, m := range batch {
		payload, err := m.AsBytes()
		if err != nil {
			return err
		}
		sum += measure.Number(payload)
	}
	b.sum.Add(sum)
	return nil
}

// errBroken is what a message that is not whole fails with.
var errBroken = errors.New("the message is not whole")

// processor reads batches.
type processor struct{}

// ProcessBatch reads all of each message.
func (processor) ProcessBatch(_ context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	for _, m := range batch {
		payload, err := m.AsBytes()
		if err != nil {
			return nil, err
		}
		if measure.Read(payload) == 0 {
			return nil, errBroken
		}
	}
	return []service.MessageBatch{batch}, nil
}

// Close does nothing.
func (processor) Close(context.Context) error { return nil }

// shape says how a stream is built.
type shape struct {
	// size is how many messages its input makes at once, and threads how many processors there are.
	size, threads int
	// collect is the size of the batches that its output collects; with 0 it writes what comes, as it comes.
	collect int
	// inFlight is how many batches are written at once.
	inFlight int
}

// run makes, processes and writes all.
func (b shape) run(ctx context.Context, in measure.Input) (measure.Output, error) {
	var sum, done atomic.Uint64
	stream, err := b.stream(&input{end: in.Messages, size: b.size, done: &done}, output{&sum})
	if err != nil {
		return measure.Output{}, err
	}
	start := time.Now()
	if err := stream.Run(ctx); err != nil {
		return measure.Output{}, err
	}
	return measure.Output{Messages: int(done.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}, nil
}

func (b shape) stream(from service.BatchInput, to service.BatchOutput) (*service.Stream, error) {
	var policy service.BatchPolicy
	if b.collect > 0 {
		policy = service.BatchPolicy{Count: b.collect, Period: "1s"}
	}
	env := service.NewEnvironment()
	none := service.NewConfigSpec()
	err := errors.Join(
		env.RegisterBatchInput("made", none, func(*service.ParsedConfig, *service.Resources) (service.BatchInput, error) {
			return from, nil
		}),
		env.RegisterBatchProcessor("read", none, func(*service.ParsedConfig, *service.Resources) (service.BatchProcessor, error) {
			return processor{}, nil
		}),
		env.RegisterBatchOutput("counted", none,
			func(*service.ParsedConfig, *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
				return to, policy, b.inFlight, nil
			}),
	)
	if err != nil {
		return nil, err
	}
	builder := env.NewStreamBuilder()
	builder.SetThreads(b.threads)
	err = errors.Join(
		builder.SetLoggerYAML("level: NONE"),
		builder.AddInputYAML("made: {}"),
		builder.AddProcessorYAML("read: {}"),
		builder.AddOutputYAML("counted: {}"),
	)
	if err != nil {
		return nil, err
	}
	return builder.Build()
}
