package inproc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure" // the pipeline's processors
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

// benthosInput makes batches of size messages.
type benthosInput struct {
	at, end, size int
	done          *atomic.Uint64
}

// Connect does nothing.
func (b *benthosInput) Connect(context.Context) error { return nil }

// Close does nothing.
func (b *benthosInput) Close(context.Context) error { return nil }

// ReadBatch makes the next batch.
func (b *benthosInput) ReadBatch(context.Context) (service.MessageBatch, service.AckFunc, error) {
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

// benthosOutput sums batches of 100.
type benthosOutput struct{ sum *atomic.Uint64 }

// Connect does nothing.
func (b benthosOutput) Connect(context.Context) error { return nil }

// Close does nothing.
func (b benthosOutput) Close(context.Context) error { return nil }

// WriteBatch reads each message.
func (b benthosOutput) WriteBatch(_ context.Context, batch service.MessageBatch) error {
	for _, m := range batch {
		payload, err := m.AsBytes()
		if err != nil {
			return err
		}
		b.sum.Add(measure.Number(payload))
	}
	return nil
}

// errBroken is what a message that is not whole fails with.
var errBroken = errors.New("the message is not whole")

// benthosProcessor reads a message.
type benthosProcessor struct{}

// Process reads it all.
func (benthosProcessor) Process(_ context.Context, m *service.Message) (service.MessageBatch, error) {
	payload, err := m.AsBytes()
	if err != nil {
		return nil, err
	}
	if measure.Read(payload) == 0 {
		return nil, errBroken
	}
	return service.MessageBatch{m}, nil
}

// Close does nothing.
func (benthosProcessor) Close(context.Context) error { return nil }

// benthos is a stream whose input makes batches of size, with two processor threads and batches of 100 at its output.
func benthos(size int) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		var sum, done atomic.Uint64
		stream, err := benthosStream(&benthosInput{end: in.Messages, size: size, done: &done}, benthosOutput{&sum})
		if err != nil {
			return measure.Output{}, err
		}
		start := time.Now()
		if err := stream.Run(ctx); err != nil {
			return measure.Output{}, err
		}
		return measure.Output{Messages: int(done.Load()), Sum: sum.Load(), Elapsed: time.Since(start)}, nil
	}
}

func benthosStream(input service.BatchInput, output service.BatchOutput) (*service.Stream, error) {
	env := service.NewEnvironment()
	none := service.NewConfigSpec()
	err := errors.Join(
		env.RegisterBatchInput("made", none, func(*service.ParsedConfig, *service.Resources) (service.BatchInput, error) {
			return input, nil
		}),
		env.RegisterProcessor("read", none, func(*service.ParsedConfig, *service.Resources) (service.Processor, error) {
			return benthosProcessor{}, nil
		}),
		env.RegisterBatchOutput("counted", none,
			func(*service.ParsedConfig, *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
				return output, service.BatchPolicy{Count: batchSize, Period: "1s"}, 2, nil
			}),
	)
	if err != nil {
		return nil, err
	}
	builder := env.NewStreamBuilder()
	builder.SetThreads(2)
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
