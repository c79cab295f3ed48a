package kafka_test

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/producers/kafka"
)

// diverges answers the fetch of t/0 from an offset after a record of epoch 0 as the
// leader of a log does that was cut at end, until it is asked for an offset before
// that.
func (f fake) diverges(offset, end int64) {
	told, heard := false, false // kfake calls one at a time
	f.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		request := r.(*kmsg.FetchRequest)
		if len(request.Topics) != 1 || heard {
			return nil, nil, false
		}
		q := request.Topics[0].Partitions[0]
		heard = told && q.FetchOffset < offset
		if heard || q.FetchOffset != offset || q.LastFetchedEpoch != 0 {
			return nil, nil, false
		}
		told = true
		f.KeepControl()
		part := kmsg.NewFetchResponseTopicPartition()
		part.HighWatermark, part.LastStableOffset, part.LogStartOffset = 20, 20, 0
		part.DivergingEpoch.Epoch, part.DivergingEpoch.EndOffset = 0, end
		return fetched(request, part), nil, true
	})
}

// TestATruncatedLogIsReadAgainFromItsCut: the log has grown over the position
// again, so that nothing but leader epochs tells.
func TestATruncatedLogIsReadAgainFromItsCut(t *testing.T) {
	for _, policy := range []kafka.OutOfRange{kafka.Fail, kafka.ResumeLatest} {
		t.Run(policy.String(), func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"))
			f.produce(t, "t", "m", 0, 10, 1)
			cfg := f.config(t, "t")
			cfg.OutOfRange = policy
			source, out := kafka.NewProducer(cfg), newSink()
			r := run(t, pipeline(source, out))
			eventually(t, "all", out.has(10)) // what is not handled yet would be given up
			f.diverges(10, 6)
			eventually(t, "again from the cut", func() error { return wantTwice(out, 4) })
			eventually(t, "committed", f.wantCommitted("t", 10))
			if s := source.Stats(); s.Truncations != 1 || s.OutOfRange != 0 || s.Generations != 1 {
				t.Errorf("while it runs: %+v", s)
			}
			r.stop(t)

			f.diverges(10, 3)
			source = kafka.NewProducer(cfg)
			r = run(t, pipeline(source, out))
			eventually(t, "again after a restart", func() error { return wantTwice(out, 4+7) })
			eventually(t, "committed", f.wantCommitted("t", 10))
			r.stop(t)
			if s := source.Stats(); s.Truncations != 1 || s.SkippedOffsets != 0 {
				t.Errorf("after a restart: %+v", s)
			}
		})
	}
}

// TestAPositionBeyondTheEndIsATruncation: where the leader epoch of the position is
// known, no policy decides.
func TestAPositionBeyondTheEndIsATruncation(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 10, 1)
	f.commitAt(t, "t", 100, 0)
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "the end is committed", f.wantCommitted("t", 10))
	f.produce(t, "t", "later", 0, 1, 1)
	eventually(t, "what comes later", f.wantCommitted("t", 11))
	r.stop(t)
	if s := source.Stats(); out.distinct() != 1 || s.Truncations != 1 || s.OutOfRange != 0 || s.SkippedOffsets != 0 {
		t.Errorf("%d messages, %+v; want 1 after a truncation", out.distinct(), s)
	}
}

// TestALogWithoutTheEpochOfThePositionIsReadFromItsStart: it holds nothing of what
// was read.
func TestALogWithoutTheEpochOfThePositionIsReadFromItsStart(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 10, 1)
	f.commitAt(t, "t", 5, 7)
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: kerr.OffsetOutOfRange})
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "all", out.has(10))
	eventually(t, "committed", f.wantCommitted("t", 10))
	r.stop(t)
	if s := source.Stats(); s.Truncations != 1 || s.OutOfRange != 0 {
		t.Errorf("%+v, want a truncation", s)
	}
}

// TestADivergingFollowerIsNotBelieved: only the leader decides what is in the log.
func TestADivergingFollowerIsNotBelieved(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 10, 1)
	leader := f.LeaderFor("t", 0)
	replica := (leader + 1) % 3
	f.SetFollowers("t", 0, []int32{replica})
	var diverged atomic.Bool
	f.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		request := r.(*kmsg.FetchRequest)
		if request.Topics[0].Partitions[0].FetchOffset != 10 || diverged.Load() {
			return nil, nil, false
		}
		part := kmsg.NewFetchResponseTopicPartition()
		part.HighWatermark, part.LastStableOffset = 10, 10
		if f.CurrentNode() == leader {
			part.PreferredReadReplica = replica
		} else {
			part.DivergingEpoch.Epoch, part.DivergingEpoch.EndOffset = 0, 2
			diverged.Store(true)
		}
		return fetched(request, part), nil, true
	})
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "what came first", out.has(10))
	eventually(t, "a follower that denies it", func() error {
		if !diverged.Load() {
			return errBad
		}
		return nil
	})
	f.produce(t, "t", "later", 0, 1, 1)
	eventually(t, "what comes later", out.has(11))
	r.stop(t)
	if s := source.Stats(); out.duplicates() != 0 || s.Truncations != 0 {
		t.Errorf("%d duplicates, %+v; want none", out.duplicates(), s)
	}
}

// TestFencedFetchesFindTheLeader: they are answered by new metadata, not by a new
// generation, and nothing is skipped or repeated.
func TestFencedFetchesFindTheLeader(t *testing.T) {
	for _, err := range []*kerr.Error{kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.UnknownTopicID, kerr.InconsistentTopicID} {
		t.Run(err.Message, func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"))
			f.produce(t, "t", "m", 0, 10, 1)
			f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: err, Count: 2})
			source, out := kafka.NewProducer(f.config(t, "t")), newSink()
			r := run(t, pipeline(source, out))
			eventually(t, "committed", f.wantCommitted("t", 10))
			f.produce(t, "t", "later", 0, 10, 1)
			eventually(t, "committed", f.wantCommitted("t", 20))
			r.stop(t)
			if s := source.Stats(); out.distinct() != 20 || out.duplicates() != 0 || s.Generations != 1 || s.Truncations != 0 {
				t.Errorf("%d messages, %d duplicates, %+v", out.distinct(), out.duplicates(), s)
			}
		})
	}
}
