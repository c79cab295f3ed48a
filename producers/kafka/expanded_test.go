package kafka_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// TestDecompressedBatchesAreBoundedInSum: each of many partitions has batches that
// decompress to a thousand times their size. What is open at a time is bounded, though
// each is handed out in turn; and one partition that goes no further, with an open
// batch, does not stop the others.
func TestDecompressedBatchesAreBoundedInSum(t *testing.T) {
	const partitions, each, limit = 10, 40, 1 << 20
	f := newFake(t, kfake.SeedTopics(partitions, "t"))
	f.produce(t, "t", strings.Repeat("z", 50_000), 0, partitions*each, partitions, kgo.ProducerBatchCompression(kgo.GzipCompression()))
	cfg := f.config(t, "t")
	cfg.MaxBytes, cfg.MaxPartitionBytes = limit, limit
	source := kafka.NewProducer(cfg)
	d := drive(t, source)
	got := map[int]int64{}
	var open []*broadway.Message
	var highest int64
	for n := 0; n < partitions*each; {
		batch := d.fetch(min(7, partitions*each-n))
		n += len(batch)
		for _, m := range batch {
			meta := m.Metadata.(*kafka.Metadata)
			if meta.Offset != got[meta.Partition] {
				t.Fatalf("partition %d: offset %d after %d messages", meta.Partition, meta.Offset, got[meta.Partition])
			}
			got[meta.Partition]++
			if meta.Partition == 0 && n < (partitions-1)*each {
				open = append(open, m)
			} else {
				d.ack(m)
			}
		}
		if n >= (partitions-1)*each {
			d.ack(open...)
			open = nil
		}
		highest = max(highest, source.Expanded())
	}
	// A batch is 1 MB, in a buffer that has grown by doubling.
	if highest > 2*limit+2*limit || highest < limit {
		t.Errorf("%d bytes were decompressed at a time", highest)
	}
	if source.Expanded() != 0 {
		t.Errorf("%d bytes are kept at the end", source.Expanded())
	}
	t.Logf("at most %d bytes were decompressed at a time", highest)
}
