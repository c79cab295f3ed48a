package bugs

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// member is one membership of the stage's group, with kafka-go's parts.
type member struct {
	s      *stage
	group  *kafka.ConsumerGroup
	gen    *kafka.Generation
	reader *kafka.Reader
}

// join becomes the only member, and reads from where the group has committed.
func (s *stage) join() *member {
	s.t.Helper()
	brokers := []string{s.kafka.Proxied()}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: s.name, Brokers: brokers, Topics: []string{s.name}, StartOffset: kafka.FirstOffset, SessionTimeout: 6 * time.Second,
		HeartbeatInterval: time.Second, JoinGroupBackoff: 100 * time.Millisecond,
	})
	s.must(err)
	gen, err := group.Next(s.t.Context())
	s.must(err)
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: s.name, Partition: 0, MaxWait: 50 * time.Millisecond})
	s.must(reader.SetOffset(gen.Assignments[s.name][0].Offset))
	return &member{s, group, gen, reader}
}

func (m *member) leave() {
	m.s.t.Helper()
	m.s.must(errors.Join(m.reader.Close(), m.group.Close()))
}

// read reads n messages.
func (m *member) read(n int) (read []kafka.Message) {
	m.s.t.Helper()
	ctx, cancel := context.WithTimeout(m.s.t.Context(), 20*time.Second)
	defer cancel()
	for range n {
		message, err := m.reader.ReadMessage(ctx)
		m.s.must(err)
		read = append(read, message)
	}
	return read
}

// commit commits everything before an offset.
func (m *member) commit(next int64) {
	m.s.t.Helper()
	m.s.must(m.gen.CommitOffsets(map[string]map[int]int64{m.s.name: {0: next}}))
}

func (s *stage) handle(read ...kafka.Message) {
	s.t.Helper()
	for _, message := range read {
		s.saw(ledger.Observation{Offset: message.Offset}, message.Value)
	}
}

// rest handles what is left, without a mistake.
func (m *member) rest(n int) {
	m.s.t.Helper()
	read := m.read(n)
	m.s.handle(read...)
	m.commit(read[n-1].Offset + 1)
}

func cleanKafka(s *stage) {
	m := s.join()
	m.rest(messages / 2)
	m.leave()
	m = s.join()
	m.rest(messages / 2)
	m.leave()
}

// The slow one of ten is still at work when the highest is committed.
func commitHighest(s *stage) {
	m := s.join()
	read := m.read(10)
	s.handle(read[1:]...)
	m.commit(10)
	s.handle(read[0])
	m.rest(messages - 10)
	m.leave()
}

// What an old generation had handled is committed late, in the name of the present one.
func commitByOldGeneration(s *stage) {
	m := s.join()
	old := m.read(10)
	s.handle(old...)
	m.commit(10)
	m.leave()
	m = s.join()
	m.rest(messages - 10)
	m.commit(old[4].Offset + 1)
	m.commit(messages)
	m.leave()
}

// A batch is half written when its partition is revoked; the position that was read is committed.
func dropHalfBatchOnRevoke(s *stage) {
	m := s.join()
	read := m.read(10)
	s.handle(read[:5]...)
	m.commit(10)
	m.leave()
	m = s.join()
	m.rest(messages - 10)
	m.leave()
}

// The reporter fails one member of a batch; the batch is committed as if it had not been named.
func ignoreFailedMember(s *stage) {
	m := s.join()
	read := m.read(10)
	failed := map[int64]error{3: errors.New("refused")}
	for _, message := range read {
		if failed[message.Offset] == nil {
			s.handle(message)
		}
	}
	m.commit(10)
	m.rest(messages - 10)
	m.leave()
}

// The committed offset is gone; the consumer goes on at the beginning of what is left, and tells nobody.
func skipOnOutOfRange(s *stage) {
	m := s.join()
	m.rest(10)
	m.leave()
	s.must(s.kafka.DeleteRecords(s.t.Context(), s.name, 0, 20))
	s.write(ledger.KindGaps, ledger.Gap{Source: s.name, First: 0, Next: 20, Why: ledger.Deleted})
	m = s.join()
	s.must(m.reader.SetOffset(kafka.FirstOffset))
	m.rest(messages - 20)
	m.leave()
}

// The first message of a key fails; it is tried again after the others.
func reorderOnRetry(s *stage) {
	m := s.join()
	read := m.read(messages)
	s.handle(read[1:]...)
	s.handle(read[0])
	m.commit(messages)
	m.leave()
}

// A tombstone becomes an empty value on its way to the handler.
func nilBecomesEmpty(s *stage) {
	s.tombstone("t-0")
	m := s.join()
	read := m.read(1)
	value := append([]byte{}, read[0].Value...)
	s.saw(ledger.Observation{ID: string(read[0].Key), Key: string(read[0].Key), Sum: ledger.Sum(value)}, nil)
	m.commit(1)
	m.leave()
}

// kafka-go's Reader commits what it is given, in any order: the anchor.
func readerOutOfOrder(s *stage) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{s.kafka.Proxied()}, GroupID: s.name, Topic: s.name, StartOffset: kafka.FirstOffset, MaxWait: 50 * time.Millisecond,
		SessionTimeout: 6 * time.Second, JoinGroupBackoff: 100 * time.Millisecond,
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	var read []kafka.Message
	for range messages {
		message, err := reader.FetchMessage(ctx)
		s.must(err)
		read = append(read, message)
	}
	half := messages / 2
	s.handle(read[half:]...)
	s.must(reader.CommitMessages(ctx, read[half:]...))
	s.handle(read[:half]...)
	s.must(reader.CommitMessages(ctx, read[:half]...))
	s.must(reader.Close())
}
