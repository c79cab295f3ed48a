package kafka

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/broadway"
)

// fetching is a session with so many partitions of one broker, which are behind, and a
// Fetch that waits for messages.
func fetching(partitions, maxBytes int) *session {
	p := NewProducer(Config{Logger: slog.New(slog.DiscardHandler), MaxBytes: maxBytes})
	p.size(broadway.Limits{MaxUnsettled: 1000})
	p.blocked.Store(true)
	s := &session{
		producer: p, cfg: p.cfg, log: p.cfg.Logger, mostNote: mostNote, window: p.window, brokers: map[int32]*broker{},
		index: map[topicPartition]*partition{}, fetchKick: make(chan struct{}, 1), watchKick: make(chan struct{}, 1), commitKick: make(chan struct{}, 1),
	}
	for i := range partitions {
		part := &partition{name: topicPartition{"t", int32(i)}, at: i, leader: leader{node: 1, epoch: 7}, replica: anyBroker, lost: -1, doubt: -1, partBytes: p.cfg.MaxPartitionBytes}
		s.parts = append(s.parts, part)
		s.index[part.name] = part
		s.open(part, committedOffset{next: 0, epoch: 3}, nil)
	}
	return s
}

// ends says that an exchange is not under way any more.
func (s *session) ends(p *plan) *broker {
	b := s.brokers[p.node]
	b.busy[p.lane] = false
	b.reserved -= p.maxBytes
	for _, part := range p.parts {
		part.inflight = false
	}
	return b
}

// answer is what a broker says to all that it is asked: log for each partition, as
// many bytes of it as that wants. It returns what was asked, exchange by exchange.
func (s *session) answer(t *testing.T, log []byte) (asked [][]int32) {
	t.Helper()
	plans, _ := s.plans(time.Now())
	for _, p := range plans {
		r := kmsg.NewPtrFetchResponse()
		r.Version = mostFetchByName
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic = "t"
		sum, of := 0, []int32(nil)
		for _, q := range p.fetch.Topics[0].Partitions {
			of = append(of, q.Partition)
			a := kmsg.NewFetchResponseTopicPartition()
			a.Partition, a.HighWatermark = q.Partition, 1<<40
			a.RecordBatches = log[:min(len(log), int(q.PartitionMaxBytes))]
			sum += int(q.PartitionMaxBytes)
			topic.Partitions = append(topic.Partitions, a)
		}
		if sum > int(p.fetch.MaxBytes) {
			t.Errorf("%d bytes are asked of %v, and %d in all: the last is cut off", sum, of, p.fetch.MaxBytes)
		}
		r.Topics = append(r.Topics, topic)
		s.apply(p, s.ends(p), r, s.producer.buffers.lend(sum))
		asked = append(asked, of)
	}
	return asked
}

// TestPartitionsWithoutRoomInAnAnswerComeNext: of eight partitions of 1 MiB a quarter of
// 8 MiB has two. Two exchanges are under way at once, and the next two have the others.
func TestPartitionsWithoutRoomInAnAnswerComeNext(t *testing.T) {
	s := fetching(8, 8<<20)
	var all [][]int32
	for range 2 {
		all = append(all, s.answer(t, plainBatch(0, "a").bytes())...)
		for _, part := range s.parts {
			s.drop(part) // as if it were handed out
		}
	}
	if got := fmt.Sprint(all); got != "[[0 1] [2 3] [4 5] [6 7]]" {
		t.Errorf("the answers have %v", got)
	}
}

// TestOffsetsDamagedAnewInEachAnswerAreNotAskedForWithoutPause: the first batch is not
// believed, and never twice the same.
func TestOffsetsDamagedAnewInEachAnswerAreNotAskedForWithoutPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fetching(1, 8<<20)
		asked := 0
		for range 100 {
			asked += len(s.answer(t, plainBatch(1<<30+int64(asked), "a").bytes()))
		}
		if asked != mostDetours+1 {
			t.Errorf("%d answers without a pause, want %d", asked, mostDetours+1)
		}
		time.Sleep(time.Minute)
		s.answer(t, plainBatch(0, "a").bytes())
		if part := s.parts[0]; part.detours != 0 || len(part.segments) != 1 {
			t.Errorf("after an answer that is right: %d detours and %d segments", part.detours, len(part.segments))
		}
	})
}

// TestTwoLongPollsBecomeOne: partitions that come to the tail one after the other are soon
// asked for together. If brokers wait for more than a byte, a second poll is as long as the
// first, and none waits for another; so it is where the last second poll brought nothing.
func TestTwoLongPollsBecomeOne(t *testing.T) {
	for _, c := range []struct {
		minBytes           int
		calm               bool
		second, next, last string
	}{
		{1, false, "[2 3] for 5 ms", "", "[0 1 2 3] for 250 ms"},
		{1, true, "[2 3] for 250 ms", "[0 1] for 250 ms", "[2 3] for 250 ms"},
		{2, false, "[2 3] for 250 ms", "[0 1] for 250 ms", "[2 3] for 250 ms"},
	} {
		s := fetching(4, 8<<20)
		s.cfg.MinBytes = c.minBytes
		s.brokers[1] = &broker{calm: c.calm}
		for i, part := range s.parts {
			part.tail, part.inflight = true, i >= 2 // as if others were asked for them
		}
		look := func() (*plan, string) {
			plans, _ := s.plans(time.Now())
			if len(plans) == 0 {
				return nil, ""
			}
			var of []int32
			for _, part := range plans[0].parts {
				of = append(of, part.name.partition)
			}
			return plans[0], fmt.Sprintf("%d for %d ms", of, plans[0].fetch.MaxWaitMillis)
		}
		first, _ := look()
		s.parts[2].inflight, s.parts[3].inflight = false, false
		second, got := look()
		if got != c.second {
			t.Fatalf("with %d bytes at least, beside a poll of partitions 0 and 1: %s, want %s", c.minBytes, got, c.second)
		}
		s.ends(first)
		if _, got = look(); got != c.next {
			t.Errorf("with %d bytes at least, after the first poll: %q, want %q", c.minBytes, got, c.next)
		}
		s.ends(second)
		if _, got = look(); got != c.last {
			t.Errorf("with %d bytes at least, after the second: %q, want %q", c.minBytes, got, c.last)
		}
	}
}

// TestASecondLongPollThatBringsNothingIsCalm: and no other poll.
func TestASecondLongPollThatBringsNothingIsCalm(t *testing.T) {
	answer := func(batches string) *kmsg.FetchResponse {
		part := kmsg.NewFetchResponseTopicPartition()
		part.RecordBatches = []byte(batches)
		topic := kmsg.NewFetchResponseTopic()
		topic.Partitions = append(topic.Partitions, kmsg.NewFetchResponseTopicPartition(), part)
		return &kmsg.FetchResponse{Topics: []kmsg.FetchResponseTopic{topic}}
	}
	b := new(broker)
	for i, c := range []struct {
		lane    int
		batches string
		calm    bool
	}{{laneTail, "", false}, {laneTail2, "", true}, {laneTail, "some", true}, {laneTail2, "some", false}} {
		if b.brought(&plan{lane: c.lane}, answer(c.batches)); b.calm != c.calm {
			t.Errorf("after answer %d calm is %v", i+1, b.calm)
		}
	}
}

// TestWhatSettlesWakesFetchIfItWaitsForThat: and not if there is nothing to hand out.
func TestWhatSettlesWakesFetchIfItWaitsForThat(t *testing.T) {
	s := fetching(1, 8<<20)
	part := s.parts[0]
	s.answer(t, slices.Concat(plainBatch(0, "a").bytes(), plainBatch(1, "b").bytes()))
	s.mostNote = 0 // nothing is marked before it is handed out
	part.own.ref.SetLimit(1)
	for _, waits := range []bool{true, false} {
		m, err := s.deliver(broadway.Demand{Messages: 10, Bytes: 1 << 20})
		if err != nil || len(m) != 1 {
			t.Fatalf("%d messages, %v", len(m), err)
		}
		if more, err := s.deliver(broadway.Demand{Messages: 10, Bytes: 1 << 20}); err != nil || len(more) > 0 {
			t.Fatalf("%d messages more than there is room for, %v", len(more), err)
		}
		part.own.ref.Untake(1)
		if err := s.producer.Ack(t.Context(), part.own.ref, m, nil); err != nil {
			t.Fatal(err)
		}
		if woken := len(s.producer.ready) > 0; woken != waits {
			t.Errorf("woken: %v, want %v", woken, waits)
		}
		s.producer.ready = make(chan struct{}, 1)
	}
}

// TestASessionLearnsThatFetchWaitsSinceBefore: it may have looked, and found no demand, before
// Fetch was called, and Fetch may have found no session.
func TestASessionLearnsThatFetchWaitsSinceBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fetching(1, 8<<20)
		p := s.producer
		p.started = true
		p.blocked.Store(false)
		if plans, _ := s.plans(time.Now()); len(plans) > 0 || !s.hungry {
			t.Fatalf("%d exchanges without demand", len(plans))
		}
		s.fetchKick = make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = p.Fetch(ctx, broadway.Demand{Messages: 1, Bytes: 1 << 20}) }()
		synctest.Wait()
		p.adopt(s)
		synctest.Wait()
		if len(s.fetchKick) == 0 {
			t.Error("the session was not told")
		}
		cancel()
		synctest.Wait()
	})
}

// TestWholeBatchesAreAskedFor: once an answer ended with the head of a batch, that batch
// is asked for as it is.
func TestWholeBatchesAreAskedFor(t *testing.T) {
	const most = 1000
	for _, c := range []struct{ ahead, want int }{
		{0, most},           // not known
		{most - 5, most},    // its head would not fit
		{most + 1, most},    // too large: it comes whole if it comes first
		{600, 600 + atBody}, // large: one
		{100, 900 + atBody}, // small: as many as there is room for
		{61, 976 + atBody},  // the smallest
		{300, 300 + atBody}, // not several that may differ
	} {
		if got := (&partition{partBytes: most, ahead: c.ahead}).wants(); got != c.want {
			t.Errorf("with %d bytes ahead: %d are asked for, want %d", c.ahead, got, c.want)
		}
	}
	for _, c := range []struct {
		growth      int64
		ahead, want int
	}{
		{2 * ratioUnit, 100, 400 + atBody},  // half as many
		{2 * ratioUnit, 300, 300 + atBody},  // large: one
		{8 * ratioUnit, 600, 600 + atBody},  // at least one
		{1000 * ratioUnit, 10, 60 + atBody}, // it may have been an exception
		{ratioUnit / 2, 100, 900 + atBody},  // they take no less than they are
		{8 * ratioUnit, 0, most},            // not known
		{8 * ratioUnit, most + 1, most},     // too large
	} {
		if got := (&partition{partBytes: most, ahead: c.ahead, growth: c.growth}).wants(); got != c.want {
			t.Errorf("with %d bytes ahead that grow by %d: %d are asked for, want %d", c.ahead, c.growth, got, c.want)
		}
	}
	next := plainBatch(1, strings.Repeat("x", 300_000)).bytes()
	s := fetching(1, 8<<20)
	s.answer(t, append(plainBatch(0, "a").bytes(), next[:100]...))
	if part := s.parts[0]; part.wants() != len(next)+atBody {
		t.Errorf("%d bytes are asked for, the next batch has %d", part.wants(), len(next))
	}
}

// TestWhatWaitsIsHandedOutFirst: once a response of a broker waits here, a partition is asked
// for only if nothing of it waits; and what was passed over for that is looked at again.
func TestWhatWaitsIsHandedOutFirst(t *testing.T) {
	s := fetching(2, 8<<20)
	batch := plainBatch(0, "a").bytes()
	if got := fmt.Sprint(s.answer(t, batch)); got != "[[0 1]]" {
		t.Fatalf("the answers have %v", got)
	}
	s.brokers[1].held += 8 << 20
	if got := fmt.Sprint(s.answer(t, batch)); got != "[]" || !s.tight {
		t.Errorf("while enough of both waits, the answers have %v; told: %v", got, s.tight)
	}
	s.drop(s.parts[1]) // as if it were handed out
	if got := fmt.Sprint(s.answer(t, batch)); got != "[[1]]" {
		t.Errorf("when nothing of the second waits, the answers have %v", got)
	}
	s.brokers[1].held = 0
	if got := fmt.Sprint(s.answer(t, plainBatch(1, "b").bytes())); got != "[[0 1]]" {
		t.Errorf("when little of both waits, the answers have %v", got)
	}
}

// TestBuffersComeBack: they are lent again for answers of about their size, and what is
// kept is bounded.
func TestBuffersComeBack(t *testing.T) {
	b := &buffers{most: 2 << 20}
	first := b.lend(500_000)
	first[0] = 7
	b.back(first)
	if again := b.lend(400_000); len(again) != 400_000 || again[0] != 7 {
		t.Errorf("another buffer of %d bytes", len(again))
	} else {
		b.back(again)
	}
	if small := b.lend(1000); cap(small) != cap(first) {
		t.Errorf("nothing is lent, and a buffer of %d bytes was made for an answer of 1,000", cap(small))
	} else {
		b.back(small)
	}
	large := b.lend(900_000)
	if small := b.lend(1000); cap(small) > bufferUnit {
		t.Errorf("a buffer of %d bytes was lent for an answer of 1,000", cap(small))
	} else {
		b.back(small)
	}
	b.back(b.lend(1_000_000))
	if b.lent+b.kept > b.most {
		t.Errorf("%d bytes are lent, and %d kept: more than %d", b.lent, b.kept, b.most)
	}
	b.back(large)
	if b.bound(0); b.lent != 0 || b.kept != 0 || len(b.free) != 0 {
		t.Errorf("%d bytes are lent, and %d kept", b.lent, b.kept)
	}
	var none *buffers
	if none.back(none.lend(10)); len(none.lend(10)) != 10 {
		t.Error("without buffers there is none")
	}
}

// TestBuffersThatAreNotUsedAreLetGoOf: once less has been lent for a while, no more is kept
// than that and a quarter.
func TestBuffersThatAreNotUsedAreLetGoOf(t *testing.T) {
	b := &buffers{most: 16 << 20}
	var lent [][]byte
	for range 8 {
		lent = append(lent, b.lend(1<<20))
	}
	for _, buffer := range lent {
		b.back(buffer)
	}
	for range spell {
		b.back(b.lend(1 << 20))
	}
	if b.kept != 8<<20 {
		t.Errorf("%d bytes are kept of what was lent in this spell and the last", b.kept)
	}
	for range 2 * spell {
		b.back(b.lend(1 << 20))
	}
	if b.kept != 1<<20 {
		t.Errorf("%d bytes are kept, though a MiB at most was lent for a while", b.kept)
	}
}

// TestAFrameThatIsNotReadIsGivenBack: whatever comes, nothing stays lent but what is
// returned.
func TestAFrameThatIsNotReadIsGivenBack(t *testing.T) {
	b := &buffers{most: 64 << 20}
	for size, whole := range map[int]bool{1000: true, trusted + 5: true, 2000: false, trusted + 7: false} {
		sent := make([]byte, 4+size)
		sent[0], sent[1], sent[2], sent[3] = byte(size>>24), byte(size>>16), byte(size>>8), byte(size)
		if sent[len(sent)-1] = 9; !whole {
			sent = sent[:len(sent)-1]
		}
		frame, err := readFrame(strings.NewReader(string(sent)), 32<<20, b)
		switch {
		case whole && (err != nil || len(frame) != size || frame[size-1] != 9):
			t.Errorf("a frame of %d bytes came as one of %d, %v", size, len(frame), err)
		case !whole && err != io.ErrUnexpectedEOF:
			t.Errorf("half a frame: %v", err)
		}
		if err == nil {
			b.back(frame)
		}
		if b.lent != 0 {
			t.Fatalf("%d bytes stay lent", b.lent)
		}
	}
}
