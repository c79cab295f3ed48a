package kafka

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/internal/micro"
)

const microRecords = 1000

// microRecord is of 200 bytes, half of which a codec can save, and has a key and a header.
func microRecord(i int) *broadway.Record {
	payload := bytes.Repeat([]byte("half of this "), 8)[:100]
	for n := uint32(i)*2654435761 + 1; len(payload) < 200; {
		n ^= n << 13
		n ^= n >> 17
		n ^= n << 5
		payload = append(payload, byte(n))
	}
	return &broadway.Record{
		Key: fmt.Appendf(nil, "key-%d", i), Payload: payload, Headers: []broadway.Header{{Key: "kind", Value: []byte("micro")}},
	}
}

// microBatch is a batch of microRecords, as brokers store it.
func microBatch(tb testing.TB, codec string) []byte {
	d := draft{delta: microRecords - 1, count: microRecords, producer: -1}
	for i := range microRecords {
		d.body = appendRecord(d.body, int64(i), microRecord(i))
	}
	d.attributes, d.body = compressedWith(tb, codec, d.body)
	return d.bytes()
}

// decodeOps read a batch of 1,000 records.
func decodeOps(tb testing.TB) []micro.Op {
	ops := []micro.Op{
		// Eight slabs of at most 128 messages and 64 KiB have an array of payloads, and four things that are used again once
		// they settle, as here they do not; the spans and the leader epochs have an array.
		decode(tb, "none", 42),
	}
	for _, codec := range []string{"gzip", "snappy", "lz4", "zstd"} {
		ops = append(ops, decode(tb, codec, micro.Unheld))
	}
	raw := microBatch(tb, "none")
	d := newTestDecoder(ReadUncommitted)
	fresh := *reading(raw, 0)
	seg := new(segment)
	several := slices.Concat(raw, raw, raw)
	return append(ops,
		micro.Op{Name: "1000-records-one-by-one", Run: func() {
			*seg = fresh
			for n := 0; ; n++ {
				rec, err := seg.peek(d)
				if rec == nil {
					if n != microRecords || err != nil {
						panic(fmt.Sprint(n, " records, ", err))
					}
					return
				}
				seg.took()
			}
		}},
		micro.Op{Name: "head-and-sum", Run: func() {
			if _, err := peekBatch(raw); err != nil {
				panic(err)
			}
			if err := checkSum(raw, d.table); err != nil {
				panic(err)
			}
		}},
		micro.Op{Name: "measure-3-batches", Run: func() { measure(several, 0, 3*microRecords, -1) }},
	)
}

// decode makes messages of a batch.
func decode(tb testing.TB, codec string, allocs int) micro.Op {
	raw, d, own := microBatch(tb, codec), newTestDecoder(ReadUncommitted), testOwnership()
	out := make([]*broadway.Message, 0, microRecords)
	fresh, seg, h := *reading(raw, 0), new(segment), new(haul)
	return micro.Op{Name: "1000-messages/" + codec, Allocs: allocs, Run: func() {
		*seg, *h = fresh, haul{messages: out}
		if seg.fill(d, own, microRecords, 1<<20, h); len(h.messages) != microRecords || h.err != nil {
			panic(fmt.Sprint(len(h.messages), " messages, ", h.err))
		}
	}}
}

// encodeOps write batches of 100 records.
func encodeOps() []micro.Op {
	records := make([]*broadway.Record, 100)
	for i := range records {
		records[i] = microRecord(i)
	}
	var ops []micro.Op
	for _, c := range []Compression{Uncompressed, Snappy, Zstd} {
		ops = append(ops, micro.Op{Name: "100-records/" + c.String(), Allocs: micro.Unheld, Run: func() {
			if _, err := encodeBatch(records, 1, c, castagnoli); err != nil {
				panic(err)
			}
		}})
	}
	key := records[17].Key
	return append(ops, micro.Op{Name: "murmur2", Run: func() { murmur2(key) }})
}

// metadataOps ask the metadata of a message.
func metadataOps() []micro.Op {
	raw := appendRecord(nil, 0, microRecord(17))
	var rec record
	if _, err := nextRecord(raw, &batchInfo{next: 1, count: 1}, &rec); err != nil {
		panic(err)
	}
	own, m, meta := testOwnership(), new(broadway.Message), new(Metadata)
	own.shape(&rec, m, meta)
	lane := partitionBy(maphash.MakeSeed())
	return []micro.Op{
		{Name: "header", Run: func() {
			if v, ok := meta.Header("kind"); !ok || len(v) == 0 {
				panic("not found")
			}
		}},
		{Name: "header-size", Run: func() { meta.MessageHeaderSize() }},
		{Name: "headers", Allocs: micro.Unheld, Run: func() { meta.Headers() }},
		{Name: "message-id", Allocs: micro.Unheld, Run: func() { _ = meta.MessageID() }},
		{Name: "partition-by-key", Run: func() { lane(m) }},
		{Name: "record", Run: func() {
			if _, err := nextRecord(raw, &batchInfo{next: 1, count: 1}, &rec); err != nil {
				panic(err)
			}
		}},
	}
}

// noteOps write and read what a commit tells: nothing settled above it, few long runs, every third offset of 10,000.
func noteOps() []micro.Op {
	n := note{topic: [16]byte{1, 2, 3}, base: 1 << 40, epoch: 7, by: writer{id: 1 << 60, generation: 12}}
	var runs, sparse []acknowledgers.Span
	for i := range int64(10) {
		runs = append(runs, acknowledgers.Span{First: n.base + 1 + 1000*i, End: n.base + 900 + 1000*i})
	}
	for i := range int64(3333) {
		sparse = append(sparse, acknowledgers.Span{First: n.base + 1 + 3*i, End: n.base + 2 + 3*i})
	}
	var ops []micro.Op
	for _, c := range []struct {
		name  string
		spans []acknowledgers.Span
	}{{"empty", nil}, {"10-runs", runs}, {"3333-spans", sparse}} {
		n.spans = c.spans
		one := n
		text, untold := one.encode(mostNote)
		if untold != 0 || len(text) > mostNote {
			panic(fmt.Sprint(untold, " offsets are not told, ", len(text), " characters"))
		}
		ops = append(ops,
			micro.Op{Name: "encode/" + c.name, Allocs: micro.Unheld, Run: func() { one.encode(mostNote) }},
			micro.Op{Name: "decode/" + c.name, Allocs: micro.Unheld, Run: func() {
				if _, err := decodeNote(text); err != nil {
					panic(err)
				}
			}})
	}
	return append(ops, markOps()...)
}

// markOps are what marks go through for each message that is handed out.
func markOps() []micro.Op {
	healthy, suspect := marks{}, marks{starts: 2, until: 120, goal: 590}
	return []micro.Op{
		{Name: "marks/healthy", Run: func() { m := healthy.settled(100).wanting(100); m.allows() }},
		{Name: "marks/suspect", Run: func() { m := suspect.settled(100).wanting(100); m.allows() }},
	}
}

// answerOps read what a broker answers about 8 partitions.
func answerOps() []micro.Op {
	const partitions = 8
	asked := askFor(13, 1, partitions)
	answer := kmsg.NewPtrFetchResponse()
	answer.SetVersion(13)
	topic := kmsg.NewFetchResponseTopic()
	for i := range int32(partitions) {
		p := kmsg.NewFetchResponseTopicPartition()
		p.Partition, p.HighWatermark, p.RecordBatches = i, 1<<40, make([]byte, 64<<10)
		topic.Partitions = append(topic.Partitions, p)
	}
	answer.Topics = append(answer.Topics, topic)
	frame := answered{asked, answer}.frame()
	ops := []micro.Op{{Name: "fetch-8-partitions-of-64KiB", Allocs: micro.Unheld, Run: func() {
		if _, err := decodeResponse(frame, asked, 7); err != nil {
			panic(err)
		}
	}}}
	for _, a := range answers() {
		frame := a.frame()
		ops = append(ops, micro.Op{
			Name:   fmt.Sprintf("%s-v%d", kmsg.NameForKey(a.request.Key()), a.request.GetVersion()),
			Allocs: micro.Unheld,
			Run: func() {
				if _, err := decodeResponse(frame, a.request, 7); err != nil {
					panic(err)
				}
			},
		})
	}
	return ops
}

func BenchmarkDecode(b *testing.B)   { micro.Benchmark(b, decodeOps(b)) }
func BenchmarkEncode(b *testing.B)   { micro.Benchmark(b, encodeOps()) }
func BenchmarkMetadata(b *testing.B) { micro.Benchmark(b, metadataOps()) }
func BenchmarkNote(b *testing.B)     { micro.Benchmark(b, noteOps()) }
func BenchmarkAnswer(b *testing.B)   { micro.Benchmark(b, answerOps()) }

func TestAllocations(t *testing.T) {
	micro.Allocations(t, slices.Concat(decodeOps(t), encodeOps(), metadataOps(), noteOps()))
}
