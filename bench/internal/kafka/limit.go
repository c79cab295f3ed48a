package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/bench/internal/measure"
)

const (
	// limitConnections is how many connections the smallest program reads from: each has its part of the partitions.
	limitConnections = 2
	// limitAnswer bounds an answer, limitPartition a partition's part of it, and limitSlab what records are copied into, in bytes.
	limitAnswer    = 2 << 20
	limitPartition = 1 << 20
	limitSlab      = 32 << 10
	// limitHead is how many bytes of a batch tell its length, which does not count them.
	limitHead = 12
)

// limit is the smallest program that reads and commits a topic: it asks for records, checks their sums, copies them into slabs of memory
// that nobody uses again, decodes and reads them, and commits where it came to. It knows one broker, and no groups, handlers, batches,
// retries or errors of partitions; it reads uncompressed batches only.
func limit(ctx context.Context, in measure.Input) (measure.Output, error) {
	return limited(ctx, in, new(tally), nil)
}

// limitSlow hands each record to one of so many goroutines instead, by a channel. They sleep and read it: the limit of a consumer with as
// many workers, which has to get its messages from somewhere. What it commits may not be handled.
func limitSlow(workers int, sleep time.Duration) func(context.Context, measure.Input) (measure.Output, error) {
	return func(ctx context.Context, in measure.Input) (measure.Output, error) {
		start := time.Now()
		var t tally
		var all sync.WaitGroup
		values := make(chan []byte, 10*workers)
		for range workers {
			all.Go(func() {
				for value := range values {
					time.Sleep(sleep)
					t.add(1, measure.Read(value))
				}
			})
		}
		_, err := limited(ctx, in, &t, values)
		close(values)
		all.Wait()
		return t.output(start), err
	}
}

// limited reads what t counts, or sends it to values if that is not nil.
func limited(ctx context.Context, in measure.Input, t *tally, values chan<- []byte) (measure.Output, error) {
	start := time.Now()
	partitions, err := partitionsOf(ctx, in)
	if err != nil {
		return measure.Output{}, err
	}
	readers, errs := make([]*limitReader, limitConnections), make([]error, limitConnections)
	var all sync.WaitGroup
	for i := range readers {
		readers[i] = &limitReader{
			topic: in.Topic, sums: crc32.MakeTable(crc32.Castagnoli), tally: t, values: values,
			next: map[int32]int64{}, end: map[int32]int64{}, ahead: map[int32]int{},
		}
		for p := i; p < partitions; p += limitConnections {
			readers[i].next[int32(p)] = 0
		}
		all.Go(func() { errs[i] = readers[i].run(ctx, in.Kafka) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return measure.Output{}, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(in.Kafka))
	if err != nil {
		return measure.Output{}, err
	}
	defer client.Close()
	var offsets kadm.Offsets
	for _, r := range readers {
		for p, at := range r.next {
			offsets.AddOffset(in.Topic, p, at, -1)
		}
	}
	committed, err := kadm.NewClient(client).CommitOffsets(ctx, in.Group, offsets)
	return t.output(start), errors.Join(err, committed.Error())
}

func partitionsOf(ctx context.Context, in measure.Input) (n int, err error) {
	conn, err := kafka.DialContext(ctx, "tcp", in.Kafka)
	if err != nil {
		return 0, err
	}
	partitions, err := conn.ReadPartitions(in.Topic)
	return len(partitions), errors.Join(err, conn.Close())
}

// limitReader reads its partitions from one connection, until each is at its end.
type limitReader struct {
	topic  string
	sums   *crc32.Table
	next   map[int32]int64
	end    map[int32]int64 // of the partitions that were answered
	ahead  map[int32]int   // how large the batch is that comes next, in bytes
	turn   int32           // the partition that comes first
	frame  []byte
	tally  *tally
	values chan<- []byte // or nil
	number int32
}

func (r *limitReader) run(ctx context.Context, addr string) (err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for {
		request := r.request()
		if request == nil {
			return nil
		}
		answer, err := r.ask(conn, request)
		if err != nil {
			return err
		}
		for i := range answer.Topics[0].Partitions {
			p := &answer.Topics[0].Partitions[i]
			if p.ErrorCode != 0 {
				return fmt.Errorf("partition %d: code %d", p.Partition, p.ErrorCode)
			}
			if err := r.read(p); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
		}
	}
}

// request asks for what is not at its end, nil when there is nothing. Who was answered last comes last.
func (r *limitReader) request() *kmsg.FetchRequest {
	request := kmsg.NewPtrFetchRequest()
	request.Version, request.MaxBytes, request.SessionEpoch = 11, limitAnswer, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = r.topic
	room := limitAnswer
	for offset := range int32(64) {
		p := (r.turn + offset) % 64
		at, mine := r.next[p]
		end, known := r.end[p]
		if !mine || known && at >= end {
			continue
		}
		q := kmsg.NewFetchRequestTopicPartition()
		q.Partition, q.FetchOffset, q.PartitionMaxBytes = p, at, limitPartition
		if size := r.ahead[p]; size > 0 {
			q.PartitionMaxBytes = int32(size + limitHead) // a whole batch: what is cut off comes twice
		}
		if room -= int(q.PartitionMaxBytes); room < 0 {
			break
		}
		topic.Partitions = append(topic.Partitions, q)
	}
	if len(topic.Partitions) == 0 {
		return nil
	}
	request.Topics = append(request.Topics, topic)
	return request
}

// ask makes one exchange. The answer aliases memory that the next one uses again.
func (r *limitReader) ask(conn net.Conn, request *kmsg.FetchRequest) (*kmsg.FetchResponse, error) {
	r.number++
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("limit")).AppendRequest(nil, request, r.number)); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if cap(r.frame) < size {
		r.frame = make([]byte, size)
	}
	r.frame = r.frame[:size]
	if _, err := io.ReadFull(conn, r.frame); err != nil {
		return nil, err
	}
	answer := kmsg.NewPtrFetchResponse()
	answer.Version = request.Version
	if err := answer.ReadFrom(r.frame[4:]); err != nil {
		return nil, err
	}
	if len(answer.Topics) != 1 {
		return nil, fmt.Errorf("code %d", answer.ErrorCode)
	}
	return answer, nil
}

// read goes through the whole batches of a partition.
func (r *limitReader) read(p *kmsg.FetchResponseTopicPartition) error {
	const head = 61
	r.end[p.Partition], r.ahead[p.Partition] = p.HighWatermark, 0
	for raw := p.RecordBatches; len(raw) >= limitHead; {
		size := limitHead + int(binary.BigEndian.Uint32(raw[8:]))
		if len(raw) < size {
			r.ahead[p.Partition] = size
			break
		}
		if binary.BigEndian.Uint16(raw[21:])&7 != 0 || crc32.Checksum(raw[21:size], r.sums) != binary.BigEndian.Uint32(raw[17:]) {
			return errors.New("a batch that is compressed, or not whole")
		}
		base := int64(binary.BigEndian.Uint64(raw))
		if err := r.records(raw[head:size], base, r.next[p.Partition]); err != nil {
			return err
		}
		r.next[p.Partition] = base + int64(binary.BigEndian.Uint32(raw[23:])) + 1
		r.turn = p.Partition + 1
		raw = raw[size:]
	}
	return nil
}

// records reads those at from and above.
func (r *limitReader) records(records []byte, base, from int64) error {
	n, sum := 0, uint64(0)
	for len(records) > 0 {
		slab := append([]byte(nil), records[:min(limitSlab, len(records))]...)
		used := 0
		for {
			offset, value, size := limitRecord(slab[used:])
			if size == 0 {
				break
			}
			switch {
			case base+offset < from:
			case r.values != nil:
				r.values <- value
			default:
				sum += measure.Read(value)
				n++
			}
			used += size
		}
		if used == 0 {
			return errors.New("a record that is too large")
		}
		records = records[used:]
	}
	r.tally.add(n, sum)
	return nil
}

// limitRecord is a record's offset within its batch, its value, and how many bytes it takes: 0 when it is not whole.
func limitRecord(b []byte) (offset int64, value []byte, size int) {
	length, at := binary.Varint(b)
	if at <= 0 || int(length) > len(b)-at {
		return 0, nil, 0
	}
	size = at + int(length)
	at++ // attributes
	_, n := binary.Varint(b[at:])
	at += n
	offset, n = binary.Varint(b[at:])
	at += n
	key, n := binary.Varint(b[at:])
	at += n + int(max(key, 0))
	length, n = binary.Varint(b[at:])
	at += n
	return offset, b[at : at+int(length)], size
}
