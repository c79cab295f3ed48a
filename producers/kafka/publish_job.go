package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/broadway"
)

// unknownTopicPatience is how long a topic may be unknown before its records
// fail: brokers learn of a new topic one after the other.
const unknownTopicPatience = 5 * time.Second

// mostRequest bounds the records of one request, but for a single one that is
// larger, and mostRecord a record: the broker closes the connection of those who
// send more than its socket.request.max.bytes, 100 MiB by default, and says
// nothing.
const (
	mostRequest = 16 << 20
	mostRecord  = 100<<20 - 64<<10
)

// job is one call of Publish. Only the exchanges of a round run concurrently,
// each with batches of its own.
type job struct {
	p       *Publisher
	items   []item
	begun   time.Time
	turn    uint32
	singles map[topicPartition]bool // partitions whose batches were too large
	untimed bool                    // the broker has refused our clock
}

// item is one record on its way.
type item struct {
	record    *broadway.Record
	size      int            // about what it takes in a batch
	to        topicPartition // partition -1 until it is chosen
	confirmed bool
	failed    bool
	err       error // why it failed, or was not confirmed yet
}

func (i *item) waits() bool { return !i.confirmed && !i.failed }

func (i *item) fail(err error) { i.failed, i.err = true, err }

func newJob(p *Publisher, records []broadway.Record) *job {
	j := &job{p: p, items: make([]item, len(records)), begun: time.Now(), turn: p.turn.Add(1), singles: map[topicPartition]bool{}}
	for i := range records {
		it := &j.items[i]
		it.record = carrying(&records[i])
		it.size = recordBytes(it.record)
		it.to = topicPartition{records[i].Destination, -1}
		if it.to.topic == "" {
			it.to.topic = p.cfg.Topic
		}
		if reason := topicMistake(it.to.topic); reason != "" {
			it.fail(fmt.Errorf("kafka: Destination %q %s", it.to.topic, reason))
		} else if it.size > mostRecord {
			it.fail(fmt.Errorf("kafka: %w: the record has %d bytes, more than %d", broadway.ErrTooLarge, it.size, mostRecord))
		}
	}
	return j
}

// waits says whether some record is neither confirmed nor failed.
func (j *job) waits() bool {
	for i := range j.items {
		if j.items[i].waits() {
			return true
		}
	}
	return false
}

// carrying is r with what a copy from another broker has as headers.
func carrying(r *broadway.Record) *broadway.Record {
	source, foreign := r.Source.(broadway.Propertied)
	if !foreign {
		return r
	}
	c := *r
	c.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], source.MessageProperties()...)
	return &c
}

// batch is what goes to one partition in one round.
type batch struct {
	to    topicPartition
	items []*item
	size  int
}

// round sends the next batch of each partition, and says whether each record
// that was sent has its outcome: whatever waits then had to wait for its turn.
func (j *job) round(ctx context.Context, stale bool) (progress bool) {
	byLeader, err := j.batches(ctx, stale)
	if err != nil {
		j.postpone(err)
		return false
	}
	var wg sync.WaitGroup
	for node, batches := range byLeader {
		wg.Go(func() { j.send(ctx, node, batches) })
	}
	wg.Wait()
	progress = len(byLeader) > 0
	for _, batches := range byLeader {
		for _, b := range batches {
			for _, it := range b.items {
				progress = progress && !it.waits()
			}
		}
	}
	return progress
}

// postpone keeps why nothing could be sent.
func (j *job) postpone(err error) {
	for i := range j.items {
		if j.items[i].waits() {
			j.items[i].err = err
		}
	}
}

// batches chooses partitions, and forms the next batch of each.
func (j *job) batches(ctx context.Context, stale bool) (map[int32][]*batch, error) {
	states, err := j.p.layout(ctx, j.topics(), stale)
	if err != nil {
		return nil, err
	}
	open, closed := map[topicPartition]*batch{}, map[topicPartition]bool{}
	for i := range j.items {
		it := &j.items[i]
		if !it.waits() || !j.place(it, states[it.to.topic]) || closed[it.to] {
			continue
		}
		b := open[it.to]
		if b == nil {
			b = &batch{to: it.to}
			open[it.to] = b
		}
		if len(b.items) > 0 && (b.size+it.size > j.p.cfg.BatchBytes || j.singles[it.to]) {
			closed[it.to] = true // this one and those behind it come next
			continue
		}
		b.size += it.size
		b.items = append(b.items, it)
	}
	byLeader, sizes := map[int32][]*batch{}, map[int32]int{}
	for to, b := range open {
		l := states[to.topic].partitions[to.partition]
		if l.err != nil {
			b.postpone(fmt.Errorf("kafka: %s: %w", to, l.err))
			continue
		}
		if sizes[l.node] > 0 && sizes[l.node]+b.size > mostRequest {
			continue // comes next
		}
		sizes[l.node] += b.size
		byLeader[l.node] = append(byLeader[l.node], b)
	}
	return byLeader, nil
}

func (j *job) topics() []string {
	seen := map[string]bool{}
	var topics []string
	for i := range j.items {
		if topic := j.items[i].to.topic; j.items[i].waits() && !seen[topic] {
			seen[topic] = true
			topics = append(topics, topic)
		}
	}
	return topics
}

// place chooses the partition of a record once, and says whether it has one.
func (j *job) place(it *item, state topicState) bool {
	if state.err != nil {
		it.err = fmt.Errorf("kafka: topic %s: %w", it.to.topic, state.err)
		c := codeOf(state.err)
		patient := c == codeUnknownTopicOrPartition && time.Since(j.begun) < unknownTopicPatience
		if !patient && !c.moved() {
			it.fail(it.err)
		}
		return false
	}
	if it.to.partition >= 0 {
		return true
	}
	n := uint32(len(state.partitions))
	switch {
	case n == 0:
		it.err = fmt.Errorf("kafka: topic %s: %w", it.to.topic, codeLeaderNotAvailable)
		return false
	case it.record.Key != nil:
		it.to.partition = int32(murmur2(it.record.Key) & 0x7fffffff % n)
	default:
		it.to.partition = int32(j.turn % n)
	}
	return true
}

func (b *batch) postpone(err error) {
	for _, it := range b.items {
		it.err = err
	}
}

func (b *batch) fail(err error) {
	for _, it := range b.items {
		it.fail(err)
	}
}

// send makes one exchange with a leader.
func (j *job) send(ctx context.Context, node int32, batches []*batch) {
	request := kmsg.NewPtrProduceRequest()
	request.Acks = -1
	request.TimeoutMillis = int32(progressTimeout / 2 / time.Millisecond)
	timestamp := j.p.cfg.Now().UnixMilli()
	if j.untimed {
		timestamp = noTimestamp
	}
	at, sent := map[string]int{}, map[topicPartition]*batch{}
	for _, b := range batches {
		records := make([]*broadway.Record, len(b.items))
		for i, it := range b.items {
			records[i] = it.record
		}
		encoded, err := encodeBatch(records, timestamp, j.p.cfg.Compression, j.p.table)
		if err != nil {
			b.fail(err)
			continue
		}
		i, known := at[b.to.topic]
		if !known {
			i = len(request.Topics)
			at[b.to.topic] = i
			t := kmsg.NewProduceRequestTopic()
			t.Topic = b.to.topic
			request.Topics = append(request.Topics, t)
		}
		q := kmsg.NewProduceRequestTopicPartition()
		q.Partition, q.Records = b.to.partition, encoded
		request.Topics[i].Partitions = append(request.Topics[i].Partitions, q)
		sent[b.to] = b
		b.postpone(fmt.Errorf("kafka: %s: no answer", b.to))
	}
	response, err := j.p.wire.try(ctx, node, request, mostProduce, answerFrame)
	answer, ok := response.(*kmsg.ProduceResponse)
	if err == nil && !ok {
		err = unexpected(response)
	}
	if err != nil {
		for _, b := range sent {
			b.postpone(err)
		}
		return
	}
	for _, t := range answer.Topics {
		for i := range t.Partitions {
			if b := sent[topicPartition{t.Topic, t.Partitions[i].Partition}]; b != nil {
				b.conclude(&t.Partitions[i], timestamp != noTimestamp)
			}
		}
	}
}

// conclude takes over what the leader says of a batch, that was written with a
// time or without.
func (b *batch) conclude(q *kmsg.ProduceResponseTopicPartition, timed bool) {
	c := code(q.ErrorCode)
	err := fmt.Errorf("kafka: %s: %w", b.to, c)
	if q.ErrorMessage != nil && *q.ErrorMessage != "" {
		err = fmt.Errorf("%w: %.200q", err, *q.ErrorMessage) // quoted: it may hold anything
	}
	switch {
	case c == codeNone:
		for _, it := range b.items {
			it.confirmed, it.err = true, nil
		}
	case c == codeInvalidRecord && len(q.ErrorRecords) > 0:
		// The whole batch was refused because of these; the others may go again.
		b.postpone(err)
		for _, r := range q.ErrorRecords {
			if i := int(r.RelativeOffset); i >= 0 && i < len(b.items) {
				b.items[i].fail(err)
			}
		}
	case c.tooLarge() && len(b.items) > 1, c.passing(), c == codeInvalidTimestamp && timed:
		b.postpone(err)
	case c.tooLarge():
		b.fail(fmt.Errorf("%w: %w", broadway.ErrTooLarge, err))
	default:
		b.fail(err)
	}
}

// pause waits before the next attempt, and says whether there is one.
func (j *job) pause(ctx context.Context, attempt int) bool {
	for i := range j.items {
		it := &j.items[i]
		if !it.waits() {
			continue
		}
		c := codeOf(it.err)
		j.singles[it.to] = j.singles[it.to] || c.tooLarge()
		j.untimed = j.untimed || c == codeInvalidTimestamp
	}
	timer := time.NewTimer(backoff(attempt, time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outcome is nil when all is confirmed.
func (j *job) outcome(ctx context.Context) error {
	errs, failed := make([]error, len(j.items)), false
	for i := range j.items {
		it := &j.items[i]
		if it.confirmed {
			continue
		}
		failed = true
		errs[i] = it.err
		if !it.failed {
			errs[i] = errors.Join(context.Cause(ctx), it.err)
		}
	}
	if !failed {
		return nil
	}
	return &broadway.PublishError{Errs: errs}
}
