package kafka

import (
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAnswersThatLeadNowhereAreNotAskedForInALoop: whatever brokers answer again and
// again, the next exchange waits in the end, and no longer once they bring something.
func TestAnswersThatLeadNowhereAreNotAskedForInALoop(t *testing.T) {
	const first, replica = 1, 2
	for name, answer := range map[string]func(node int32, q *kmsg.FetchResponseTopicPartition){
		"it differs where nothing was read": func(_ int32, q *kmsg.FetchResponseTopicPartition) {
			q.DivergingEpoch.Epoch, q.DivergingEpoch.EndOffset = 5, 50
		},
		"the beginning of a batch": func(_ int32, q *kmsg.FetchResponseTopicPartition) { q.RecordBatches = make([]byte, 10) },
		"the leader wants a replica to be read, which denies the position": func(node int32, q *kmsg.FetchResponseTopicPartition) {
			if node == first {
				q.PreferredReadReplica = replica
			} else {
				q.ErrorCode = int16(codeOutOfRange)
			}
		},
		"the leader wants a replica to be read, which differs": func(node int32, q *kmsg.FetchResponseTopicPartition) {
			if node == first {
				q.PreferredReadReplica = replica
			} else {
				q.DivergingEpoch.Epoch, q.DivergingEpoch.EndOffset = 5, 50
			}
		},
	} {
		p := NewProducer(Config{Logger: slog.New(slog.DiscardHandler)})
		s := &session{
			producer: p, cfg: p.cfg, log: p.cfg.Logger, mostNote: mostNote, brokers: map[int32]*broker{first: {}, replica: {}},
			fetchKick: make(chan struct{}, 1), watchKick: make(chan struct{}, 1), commitKick: make(chan struct{}, 1),
		}
		part := &partition{leader: leader{node: first, epoch: 7}, replica: anyBroker, lost: -1, partBytes: p.cfg.MaxPartitionBytes}
		s.parts = []*partition{part}
		s.open(part, committedOffset{next: 10, epoch: 3}, nil)
		ask := func(answer func(int32, *kmsg.FetchResponseTopicPartition)) (waits bool) {
			now := time.Now()
			node := part.target(now)
			q := kmsg.NewFetchResponseTopicPartition()
			q.HighWatermark, q.LastStableOffset = 100, 100
			answer(node, &q)
			part.notBefore = time.Time{}
			s.applyPartition(&frame{node: node}, part, &q, now)
			return part.notBefore.After(now)
		}
		for n := 0; !ask(answer); n++ {
			if n == 100 {
				t.Errorf("%s: it is asked for again and again", name)
				break
			}
		}
		ask(func(_ int32, q *kmsg.FetchResponseTopicPartition) { q.RecordBatches = plainBatch(10, "a").bytes() })
		s.drop(part) // as if it were handed out
		if ask(answer) {
			t.Errorf("%s: it waits at once", name)
		}
	}
}
