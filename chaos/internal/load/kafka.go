package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// Spec is a load. The zero values of Producers, Keys and Size mean 2, [Keys] (and at most a twentieth of Messages, so that every
// key repeats) and [BodySize].
type Spec struct {
	// Dir is where the producers' ledger goes, Run the first part of each id, Source the topic or queue.
	Dir, Run, Source string
	// Lot is appended to Run, and begins keys: for several loads in one run.
	Lot string
	// Messages is how many there are in all, First how many of each producer were sent before, by a load that this one goes on with.
	Messages, First int
	// Producers send side by side. A key belongs to one of them.
	Producers int
	Keys      int
	Size      int
	// Every is the pause of each producer after a message. 0 is none.
	Every time.Duration
	// BatchBytes is the most that a batch of Kafka takes. Default the client's, a megabyte.
	BatchBytes int32
}

func (s *Spec) defaults() {
	if s.Producers == 0 {
		s.Producers = 2
	}
	if s.Keys == 0 {
		s.Keys = max(1, min(Keys, s.Messages/20))
	}
	s.Keys = max(s.Keys, s.Producers)
	if s.Size == 0 {
		s.Size = BodySize
	}
}

// Sent counts what became of a load.
type Sent struct{ Acked, Failed, Unknown atomic.Int64 }

// count counts a state.
func (s *Sent) count(state ledger.State) {
	switch state {
	case ledger.Acked:
		s.Acked.Add(1)
	case ledger.Failed:
		s.Failed.Add(1)
	case ledger.Unknown:
		s.Unknown.Add(1)
	}
}

// message is the i-th one of producer p, after the first ones.
func (s *Spec) message(p, i int) (ledger.Produced, []byte) {
	i += s.First
	own := (s.Keys - p + s.Producers - 1) / s.Producers // keys p, p+Producers, …
	entry := ledger.Produced{
		ID: ID(s.Run+s.Lot, p, i), Key: fmt.Sprintf("%sk%05d", s.Lot, p+i%own*s.Producers), KeySeq: int64(i / own), State: ledger.Attempted, Source: s.Source,
	}
	body := Body(entry.ID, entry.Key, entry.KeySeq, s.Size)
	entry.Sum = ledger.Sum(body)
	return entry, body
}

// share is how many messages producer p sends.
func (s *Spec) share(p int) int { return (s.Messages - p + s.Producers - 1) / s.Producers }

// run runs one producer per goroutine, each with a ledger of its own.
func (s *Spec) run(produce func(p int, writer *ledger.Writer) error) error {
	s.defaults()
	errs := make([]error, s.Producers)
	var producing sync.WaitGroup
	for p := range s.Producers {
		producing.Go(func() {
			writer, err := ledger.Create(s.Dir, ledger.KindProduced)
			if err == nil {
				err = errors.Join(produce(p, writer), writer.Close())
			}
			errs[p] = err
		})
	}
	producing.Wait()
	return errors.Join(errs...)
}

// pause waits for the next message's turn.
func (s *Spec) pause(ctx context.Context) error {
	if s.Every == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(s.Every)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Kafka writes the load to a topic, idempotently and with all acknowledgements, and returns when the fate of each record is known.
// Refused records are no error: the ledger has them.
func Kafka(ctx context.Context, broker string, spec Spec, sent *Sent) error {
	return spec.run(func(p int, writer *ledger.Writer) error {
		options := []kgo.Opt{
			kgo.SeedBrokers(broker), kgo.ClientID(fmt.Sprintf("chaos-load-%d", p)), kgo.DefaultProduceTopic(spec.Source),
			kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.ProducerLinger(2 * time.Millisecond),
			kgo.ProducerBatchMaxBytes(int32(max(1_000_000, spec.Size+64<<10))),
		}
		if spec.BatchBytes > 0 {
			options = append(options, kgo.ProducerBatchMaxBytes(spec.BatchBytes))
		}
		client, err := kgo.NewClient(options...)
		if err != nil {
			return err
		}
		defer client.Close()
		var failures firstError
		for i := range spec.share(p) {
			entry, body := spec.message(p, i)
			entry.At = ledger.Now()
			if err := writer.Append(entry); err != nil {
				return err
			}
			client.Produce(ctx, &kgo.Record{Key: []byte(entry.Key), Value: body}, func(r *kgo.Record, err error) {
				entry.State, entry.Partition, entry.Offset, entry.At = kafkaFate(err), r.Partition, r.Offset, ledger.Now()
				sent.count(entry.State)
				failures.keep(writer.Append(entry))
			})
			if err := spec.pause(ctx); err != nil {
				return err
			}
		}
		return errors.Join(client.Flush(ctx), failures.get())
	})
}

// kafkaFate says what an error of a produce means: only an answer of the broker is a refusal.
func kafkaFate(err error) ledger.State {
	var refused *kerr.Error
	switch {
	case err == nil:
		return ledger.Acked
	case errors.As(err, &refused) && !refused.Retriable:
		return ledger.Failed
	default:
		return ledger.Unknown
	}
}

// firstError keeps the first error of concurrent calls.
type firstError struct{ first atomic.Pointer[error] }

func (f *firstError) keep(err error) {
	if err != nil {
		f.first.CompareAndSwap(nil, &err)
	}
}

func (f *firstError) get() error {
	if err := f.first.Load(); err != nil {
		return *err
	}
	return nil
}

// Name is the id and the key of the i-th message of producer p.
func (s Spec) Name(p, i int) (id, key string) {
	s.defaults()
	entry, _ := s.message(p, i)
	return entry.ID, entry.Key
}

// PartitionOf is where [Kafka] puts a key.
func PartitionOf(key string, partitions int) int32 {
	record := &kgo.Record{Key: []byte(key)}
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(record, partitions))
}
