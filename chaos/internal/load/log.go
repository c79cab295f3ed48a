package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// Compacted writes rounds of puts on the same keys to partition 0 of a topic, in each the i-th of ten keys is a tombstone (nil) or an
// empty value instead. Ids are places, as in a corpus.
func Compacted(ctx context.Context, broker string, spec Spec, sent *Sent) (err error) {
	writer, err := ledger.Create(spec.Dir, ledger.KindProduced)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-puts"), kgo.DefaultProduceTopic(spec.Source),
		kgo.ProducerBatchMaxBytes(64<<10), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer client.Close()
	var failures firstError
	for i := range spec.Messages {
		key := i % spec.Keys
		record := &kgo.Record{Key: fmt.Appendf(nil, "k%d", key), Value: Body(ID(spec.Run, 0, i), "", int64(i), BodySize)}
		switch (key + i/spec.Keys) % 10 {
		case 0:
			record.Value = nil
		case 1:
			record.Value = []byte{}
		}
		client.Produce(ctx, record, func(r *kgo.Record, err error) {
			failures.keep(errors.Join(err, writer.Append(placed(r))))
			sent.count(kafkaFate(err))
		})
	}
	return errors.Join(client.Flush(ctx), failures.get())
}

// Put writes one more record under a key of its own, so that the broker looks at what it might close and clean.
func Put(ctx context.Context, broker string, spec Spec, sent *Sent) (err error) {
	writer, err := ledger.Create(spec.Dir, ledger.KindProduced)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-puts"), kgo.DefaultProduceTopic(spec.Source))
	if err != nil {
		return err
	}
	defer client.Close()
	record, err := client.ProduceSync(ctx, &kgo.Record{Key: []byte("roll"), Value: []byte("roll")}).First()
	if err != nil {
		return err
	}
	sent.count(ledger.Acked)
	return writer.Append(placed(record))
}

// placed is a line for a record that the broker has, and whose id is its place.
func placed(r *kgo.Record) ledger.Produced {
	return ledger.Produced{
		ID: PlaceID(r.Topic, r.Partition, r.Offset), Sum: SumRecord(r.Key, r.Value, r.Headers), State: ledger.Acked,
		Source: r.Topic, Partition: r.Partition, Offset: r.Offset, At: ledger.Now(),
	}
}

// Transactions writes the load in transactions of size messages, of which every third is aborted. Aborted says that nobody may see
// those: their places are written down as gaps. The producers go on side by side, so that their transactions interleave.
func Transactions(ctx context.Context, broker string, spec Spec, size int, aborted bool, sent *Sent) error {
	return spec.run(func(p int, writer *ledger.Writer) error {
		t, err := newTransactor(broker, spec, p, time.Minute)
		if err != nil {
			return err
		}
		defer t.client.Close()
		for first, n := 0, 0; first < spec.share(p); first, n = first+size, n+1 {
			entries, err := t.write(ctx, &spec, p, first, min(size, spec.share(p)-first))
			if err != nil {
				return err
			}
			commit := kgo.TryCommit
			if n%3 == 2 {
				commit = kgo.TryAbort
			}
			if err := t.client.EndTransaction(ctx, commit); err != nil {
				return err
			}
			if err := t.tell(writer, entries, aborted && !bool(commit), sent); err != nil {
				return err
			}
		}
		return nil
	})
}

// Open writes n messages of the first producer in a transaction that is never ended: the broker aborts it after limit. It returns at
// once. A load that goes on has them as its First ones.
func Open(ctx context.Context, broker string, spec Spec, n int, limit time.Duration, aborted bool, sent *Sent) (err error) {
	spec.defaults()
	writer, err := ledger.Create(spec.Dir, ledger.KindProduced)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	t, err := newTransactor(broker, spec, 0, limit)
	if err != nil {
		return err
	}
	defer t.client.Close()
	entries, err := t.write(ctx, &spec, 0, 0, n)
	if err != nil {
		return err
	}
	return t.tell(writer, entries, aborted, sent)
}

// transactor is one transactional producer.
type transactor struct {
	client *kgo.Client
	dir    string
}

func newTransactor(broker string, spec Spec, p int, limit time.Duration) (*transactor, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID(fmt.Sprintf("chaos-transactions-%d", p)), kgo.DefaultProduceTopic(spec.Source),
		kgo.TransactionalID(fmt.Sprintf("%s-%d-%d", spec.Run, p, ledger.Now())), kgo.TransactionTimeout(limit), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	return &transactor{client, spec.Dir}, err
}

// write begins a transaction, and returns when the broker has its messages.
func (t *transactor) write(ctx context.Context, spec *Spec, p, first, n int) ([]ledger.Produced, error) {
	if err := t.client.BeginTransaction(); err != nil {
		return nil, err
	}
	entries := make([]ledger.Produced, n)
	records := make([]*kgo.Record, n)
	for i := range n {
		entry, body := spec.message(p, first+i)
		entries[i], records[i] = entry, &kgo.Record{Key: []byte(entry.Key), Value: body}
	}
	if err := t.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return nil, err
	}
	for i, r := range records {
		entries[i].Partition, entries[i].Offset = r.Partition, r.Offset
	}
	return entries, nil
}

// tell writes down where messages are, and that they are gaps if nobody may see them.
func (t *transactor) tell(writer *ledger.Writer, entries []ledger.Produced, gap bool, sent *Sent) error {
	var gaps []ledger.Gap
	for _, entry := range entries {
		entry.State, entry.At = ledger.Acked, ledger.Now()
		sent.count(entry.State)
		if err := writer.Append(entry); err != nil {
			return err
		}
		gaps = append(gaps, ledger.Gap{Source: entry.Source, Partition: entry.Partition, First: entry.Offset, Next: entry.Offset + 1, Why: ledger.Aborted})
	}
	if !gap {
		return nil
	}
	return Gaps(t.dir, gaps...)
}

// Gaps writes down what nobody can be handed.
func Gaps(dir string, gaps ...ledger.Gap) (err error) {
	writer, err := ledger.Create(dir, ledger.KindGaps)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	for _, gap := range gaps {
		if err := writer.Append(gap); err != nil {
			return err
		}
	}
	return nil
}
