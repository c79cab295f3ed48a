package brokers

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Record is one record of Kafka, to produce or as read back.
type Record struct {
	Partition  int    // where it goes: partition 0 unless said otherwise, whatever the key
	Key, Value []byte // nil is null
	Headers    []Header
	Time       time.Time // zero: now
	Offset     int64     // as read back
}

// Header is one header of a [Record].
type Header struct {
	Key   string
	Value []byte
}

// ProduceOptions say how records are written.
type ProduceOptions struct {
	// Compression is "none", "gzip", "snappy", "lz4" or "zstd"; empty is none.
	Compression string
	// Transaction writes the records in a transaction of their own, which leaves a control record in each partition.
	Transaction Transaction
}

// Transaction says how a transaction ends.
type Transaction int

// The ends of a transaction: none is begun, committed, or aborted.
const (
	NoTransaction Transaction = iota
	Commit
	Abort
)

// Produce writes records, acknowledged by all replicas.
func (b *KafkaBroker) Produce(t testing.TB, topic string, records ...Record) {
	t.Helper()
	b.ProduceWith(t, topic, ProduceOptions{}, records...)
}

// ProduceWith is [KafkaBroker.Produce] with a codec or in a transaction.
func (b *KafkaBroker) ProduceWith(t testing.TB, topic string, o ProduceOptions, records ...Record) {
	t.Helper()
	codec, err := o.codec()
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(batchLimit(records)),
	}
	if o.Transaction != NoTransaction {
		opts = append(opts, kgo.TransactionalID(freshName(t.Name())))
	}
	b.call(t, "produce to "+topic, func(ctx context.Context, client *kgo.Client) error {
		return o.produce(ctx, client, convertRecords(topic, records))
	}, opts...)
}

func (o ProduceOptions) codec() (kgo.CompressionCodec, error) {
	switch o.Compression {
	case "", "none":
		return kgo.NoCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("unknown compression %q", o.Compression)
}

func (o ProduceOptions) produce(ctx context.Context, client *kgo.Client, records []*kgo.Record) error {
	if o.Transaction == NoTransaction {
		return client.ProduceSync(ctx, records...).FirstErr()
	}
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	return client.EndTransaction(ctx, kgo.TransactionEndTry(o.Transaction == Commit))
}

// batchLimit is Kafka's own default for a batch, or what the largest record takes.
func batchLimit(records []Record) int32 {
	limit := 1_000_012
	for _, record := range records {
		size := 1000 + len(record.Key) + len(record.Value)
		for _, header := range record.Headers {
			size += 20 + len(header.Key) + len(header.Value)
		}
		limit = max(limit, size)
	}
	return int32(limit)
}

// convertRecords makes the client's records of ours.
func convertRecords(topic string, records []Record) []*kgo.Record {
	converted := make([]*kgo.Record, len(records))
	for i, record := range records {
		headers := make([]kgo.RecordHeader, len(record.Headers))
		for j, header := range record.Headers {
			headers[j] = kgo.RecordHeader{Key: header.Key, Value: header.Value}
		}
		converted[i] = &kgo.Record{
			Topic: topic, Partition: int32(record.Partition), Key: record.Key, Value: record.Value, Headers: headers, Timestamp: record.Time,
		}
	}
	return converted
}

// Records returns everything that is in a topic now: committed records only, no control records, each partition in its order.
func (b *KafkaBroker) Records(t testing.TB, topic string) []Record {
	t.Helper()
	starts, ends := b.StartOffsets(t, topic), b.EndOffsets(t, topic)
	from := make(map[int32]kgo.Offset)
	for i := range ends {
		if starts[i] < ends[i] {
			from[int32(i)] = kgo.NewOffset().At(starts[i])
		}
	}
	if len(from) == 0 {
		return nil
	}
	var records []Record
	b.call(t, "read "+topic, func(ctx context.Context, client *kgo.Client) (err error) {
		records, err = readUntil(ctx, client, ends, len(from))
		return err
	}, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	return records
}

// readUntil polls until the given number of partitions have been read up to their end. Control records are polled as well, since
// one can be the last thing in a partition.
func readUntil(ctx context.Context, client *kgo.Client, ends []int64, open int) ([]Record, error) {
	var records []Record
	for open > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			end := ends[record.Partition]
			if record.Offset == end-1 {
				open--
			}
			if record.Offset < end && !record.Attrs.IsControl() {
				records = append(records, readRecord(record))
			}
		})
	}
	return records, nil
}

func readRecord(record *kgo.Record) Record {
	read := Record{
		Partition: int(record.Partition), Key: record.Key, Value: record.Value, Time: record.Timestamp, Offset: record.Offset,
	}
	for _, header := range record.Headers {
		read.Headers = append(read.Headers, Header{Key: header.Key, Value: header.Value})
	}
	return read
}
