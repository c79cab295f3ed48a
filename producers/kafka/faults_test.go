package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// TestFailingCommitsStopAPartitionAtItsWindow: what a crash would repeat stays
// bounded while commits fail, and nothing comes twice when they work again.
func TestFailingCommitsStopAPartitionAtItsWindow(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 1000, 1)
	commits := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	cfg := f.config(t, "t")
	cfg.Window = 200
	source, out := kafka.NewProducer(cfg), newSink()
	p := pipeline(source, out)
	p.MaxUnsettled = 20
	r := run(t, p)
	eventually(t, "the window is full", out.has(200))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := commits.Wait(ctx, commits.Hits()+5); err != nil {
		t.Fatal(err)
	}
	if n := out.distinct(); n != 200 {
		t.Errorf("%d messages were handed out, and none is committed; want 200", n)
	}
	eventually(t, "health says so", unhealthy(source, "commit of t/0"))
	commits.Remove()
	eventually(t, "all", out.has(1000))
	eventually(t, "committed", f.wantCommitted("t", 1000))
	eventually(t, "healthy", healthy(source))
	r.stop(t)
	if s := source.Stats(); out.duplicates() != 0 || s.Generations != 1 || s.CommitsFailed == 0 {
		t.Errorf("%d duplicates, %+v; want none in one generation", out.duplicates(), s)
	}
}

// TestAFencedMemberCommitsWhatItKept: the group does not know the member any more, and
// takes none of its commits. What has settled is committed in the next generation, as
// nobody else had the partition, and does not come again.
func TestAFencedMemberCommitsWhatItKept(t *testing.T) {
	for _, err := range []*kerr.Error{kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress} {
		t.Run(err.Message, func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"))
			f.produce(t, "t", "m", 0, 50, 1)
			f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: err, When: func(r kmsg.Request) bool {
				return r.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0].Offset > 0 // not that it began
			}})
			source, out := kafka.NewProducer(f.config(t, "t")), newSink()
			r := run(t, pipeline(source, out))
			eventually(t, "committed", f.wantCommitted("t", 50))
			r.stop(t)
			if s := source.Stats(); s.Fenced != 1 || s.Generations != 2 || s.Repeats != 0 || s.Kept == 0 || out.duplicates() != 0 {
				t.Errorf("%d duplicates, %+v; want one fencing, and nothing again", out.duplicates(), s)
			}
		})
	}
}

// TestLeadersMove: metadata is asked for anew, and the member stays in its group.
func TestLeadersMove(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(6, "t"))
	cfg := f.config(t, "t")
	cfg.MetadataInterval = time.Hour // it is asked for because of the errors
	source, out := kafka.NewProducer(cfg), newSink()
	r := run(t, pipeline(source, out))
	for round := range 10 {
		f.produce(t, "t", "m", 300*round, 300*(round+1), 6)
		f.ShufflePartitionLeaders()
	}
	eventually(t, "all", out.has(3000))
	eventually(t, "committed", f.wantCommitted("t", 500, 500, 500, 500, 500, 500))
	eventually(t, "healthy", healthy(source))
	r.stop(t)
	if s := source.Stats(); out.duplicates() != 0 || s.Generations != 1 {
		t.Errorf("%d duplicates, %+v; want none in one generation", out.duplicates(), s)
	}
}

// TestAPositionThatExistsAfterAll: a leader that is not up to date yet denies it.
func TestAPositionThatExistsAfterAll(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 10, 1)
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: kerr.OffsetOutOfRange})
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "all", out.has(10))
	r.stop(t)
	if s := source.Stats(); s.OutOfRange != 0 || s.Exchanges < 4 {
		t.Errorf("%+v, want two questions for offsets and no policy applied", s)
	}
}

// TestCoordinatorsMove: commits find the new one.
func TestCoordinatorsMove(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(2, "t"))
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	for round := range 5 {
		f.produce(t, "t", "m", 100*round, 100*(round+1), 2)
		eventually(t, "handled", out.has(100*(round+1)))
		f.RehashCoordinators()
	}
	eventually(t, "committed", f.wantCommitted("t", 250, 250))
	r.stop(t)
}

// TestBrokersGoAndComeBack: each of three brokers in turn.
func TestBrokersGoAndComeBack(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(6, "t"))
	cfg := f.config(t, "t")
	source, out := kafka.NewProducer(cfg), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "healthy", healthy(source))
	var ports []int
	for _, addr := range f.ListenAddrs() {
		ports = append(ports, int(netip.MustParseAddrPort(addr).Port()))
	}
	for node := range int32(3) {
		if err := f.RemoveNode(node); err != nil {
			t.Fatal(err)
		}
		f.produce(t, "t", fmt.Sprint("without-", node), 0, 60, 6)
		eventually(t, "messages without a broker", out.has(120*int(node)+60))
		if _, _, err := f.AddNode(node, ports[node]); err != nil {
			t.Fatal(err)
		}
		f.ShufflePartitionLeaders()
		f.produce(t, "t", fmt.Sprint("with-", node), 0, 60, 6)
		eventually(t, "messages with it again", out.has(120*int(node)+120))
	}
	eventually(t, "committed", f.wantCommitted("t", 60, 60, 60, 60, 60, 60))
	r.stop(t)
}

// second is the rack of the second producer of a test: a long poll of the first, which it
// cut as it closed, may still wait at the broker, and be answered to nobody.
const second = "second"

// broken answers the second producer's fetches of t/0 from offset 5 with a batch whose
// checksum is wrong, so often.
func (f fake) broken(times int) {
	left := times
	f.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		request := r.(*kmsg.FetchRequest)
		if left == 0 || request.Rack != second || len(request.Topics) != 1 || request.Topics[0].Partitions[0].FetchOffset != 5 {
			return nil, nil, false
		}
		if left--; left > 0 {
			f.KeepControl()
		}
		batch := kmsg.RecordBatch{FirstOffset: 5, Length: 49, Magic: 2, CRC: 12345, LastOffsetDelta: 1, NumRecords: 2}
		part := kmsg.NewFetchResponseTopicPartition()
		part.HighWatermark, part.LastStableOffset, part.LogStartOffset = 10, 10, 0
		part.RecordBatches = batch.AppendTo(nil)
		return fetched(request, part), nil, true
	})
}

// A batch that is too large to be read stops its own partition, whatever it is
// asked for with, and no other.
func TestABatchThatIsTooLargeStopsItsPartitionOnly(t *testing.T) {
	f := newFake(t, kfake.NumBrokers(1), kfake.SeedTopics(4, "t"), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "16777216"}))
	f.produce(t, "t", "a", 0, 40, 4)
	client, err := kgo.NewClient(kgo.SeedBrokers(f.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(8<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Partition: 1, Value: make([]byte, 6<<20)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	f.produce(t, "t", "b", 40, 80, 4)
	for _, policy := range []kafka.Corrupt{kafka.StopPartition, kafka.SkipBatch} {
		cfg := f.config(t, "t")
		cfg.Corrupt, cfg.Group = policy, "g"
		cfg.MaxBytes, cfg.MaxPartitionBytes, cfg.MaxBatchBytes = 1<<20, 1<<20, 1<<20
		source, out := kafka.NewProducer(cfg), newSink()
		r := run(t, pipeline(source, out))
		eventually(t, "health names the partition", unhealthy(source, "t/1: at offset 10: a batch that is too large"))
		f.produce(t, "t", fmt.Sprint("c", policy), 0, 4, 4) // the others go on
		eventually(t, "the others", func() error {
			for p := range 4 {
				if at := f.committed("t", int32(p)); p == 1 && at != 10 || p != 1 && at != f.PartitionInfo("t", int32(p)).HighWatermark {
					return fmt.Errorf("partition %d: %d is committed", p, at)
				}
			}
			return nil
		})
		r.stop(t)
		if s := source.Stats(); s.SkippedOffsets != 0 {
			t.Errorf("%d offsets were skipped", s.SkippedOffsets)
		}
	}
}

func TestCorruptBatches(t *testing.T) {
	for name, c := range map[string]struct {
		times   int
		policy  kafka.Corrupt
		want    int
		skipped int64
	}{
		"damaged on its way": {2, kafka.StopPartition, 10, 0},
		"stops":              {3, kafka.StopPartition, 5, 0},
		"is skipped":         {3, kafka.SkipBatch, 8, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"))
			f.produce(t, "t", "m", 0, 5, 1)
			cfg := f.config(t, "t")
			cfg.Corrupt = c.policy
			source, out := kafka.NewProducer(cfg), newSink()
			r := run(t, pipeline(source, out))
			eventually(t, "what comes before", f.wantCommitted("t", 5))
			r.stop(t)

			f.broken(c.times)
			for i := 5; i < 10; i++ {
				f.produce(t, "t", "m", i, i+1, 1)
			}
			cfg.Rack = second
			source = kafka.NewProducer(cfg)
			r = run(t, pipeline(source, out))
			if c.want == 10 {
				eventually(t, "all", out.has(10))
			} else if c.policy == kafka.StopPartition {
				eventually(t, "health says so", unhealthy(source, "t/0: at offset 5: corrupt batch"))
			} else {
				eventually(t, "the rest", out.has(c.want))
			}
			r.stop(t)
			if s := source.Stats(); out.distinct() != c.want || s.SkippedOffsets != c.skipped || s.CorruptBatches != int64(c.times) {
				t.Errorf("%d messages, %+v; want %d, %d skipped", out.distinct(), s, c.want, c.skipped)
			}
			if c.policy == kafka.StopPartition && c.want == 5 {
				if err := f.wantCommitted("t", 5)(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestAFailedMessageStopsItsPartitionOnly: it stays unsettled, and is said.
func TestAFailedMessageStopsItsPartitionOnly(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(2, "t"))
	f.produce(t, "t", "m", 0, 100, 2)
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	p := pipeline(source, out)
	var before sync.WaitGroup // those before it in its partition, which would be given up otherwise
	before.Add(10)
	p.Processor.Handler = func(ctx context.Context, m *broadway.Message) error {
		if string(m.Payload) == "m-20" { // partition 0, offset 10
			before.Wait()
			return broadway.Reject(errBad)
		}
		if meta := m.Metadata.(*kafka.Metadata); meta.Partition == 0 && meta.Offset < 10 {
			defer before.Done()
		}
		return out.handle(ctx, m)
	}
	r := run(t, p)
	eventually(t, "health says so", unhealthy(source, "t/0: stopped at offset 10: bad"))
	eventually(t, "committed", f.wantCommitted("t", 10, 50))
	f.produce(t, "t", "later", 0, 100, 2)
	eventually(t, "the other goes on", f.wantCommitted("t", 10, 100))
	r.stop(t)
	if err := f.wantCommitted("t", 10, 100)(); err != nil {
		t.Errorf("after the stop: %v", err)
	}

	again := newSink()
	r = run(t, pipeline(kafka.NewProducer(f.config(t, "t")), again))
	eventually(t, "the next run gets it", f.wantCommitted("t", 100, 100))
	r.stop(t)
	if !slices.Contains(again.payloads(), "m-20") {
		t.Error("the failed message did not come again")
	}
}

// TestReplicasAreReadWhenTheLeaderSaysSo: and the leader again after an error.
func TestReplicasAreReadWhenTheLeaderSaysSo(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	leader := f.LeaderFor("t", 0)
	replica := (leader + 1) % 3
	f.SetFollowers("t", 0, []int32{replica})
	f.produce(t, "t", "m", 0, 10, 1)
	var racks, atReplica atomic.Int64
	f.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		request := r.(*kmsg.FetchRequest)
		if request.Rack == "here" {
			racks.Add(1)
		}
		if f.CurrentNode() == replica {
			atReplica.Add(1)
		}
		if f.CurrentNode() != leader || atReplica.Load() > 0 {
			return nil, nil, false
		}
		part := kmsg.NewFetchResponseTopicPartition()
		part.HighWatermark, part.PreferredReadReplica = 10, replica
		return fetched(request, part), nil, true
	})
	cfg := f.config(t, "t")
	cfg.Rack = "here"
	source, out := kafka.NewProducer(cfg), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "messages from the replica", out.has(10))
	if atReplica.Load() == 0 || racks.Load() == 0 {
		t.Errorf("%d fetches at the replica, %d with the rack", atReplica.Load(), racks.Load())
	}
	f.SetFollowers("t", 0, nil) // the replica refuses from now on
	f.produce(t, "t", "n", 0, 10, 1)
	eventually(t, "messages from the leader", out.has(20))
	r.stop(t)
}

func TestAnUnreachableBrokerIsSaidAndWaitedFor(t *testing.T) {
	addr := unusedAddr(t)
	cfg := kafka.Config{Brokers: []string{addr}, Topics: []string{"t"}, Group: "g", Logger: logger(t)}
	source := kafka.NewProducer(cfg)
	p := pipeline(source, newSink())
	p.ReconnectBackoff = broadway.Backoff{Initial: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	r := run(t, p)
	eventually(t, "said", unhealthy(source, "refused"))
	eventually(t, "said in Stats", func() error {
		if err := r.Stats().Producers[0].Err; err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("error %v", err)
		}
		return nil
	})
	r.stop(t)

	p.Producers = []broadway.Producer{kafka.NewProducer(cfg)}
	p.FailFast = true
	r = run(t, p)
	<-r.done
	if r.err == nil || !strings.Contains(r.err.Error(), "refused") {
		t.Errorf("Run with FailFast: %v", r.err)
	}
}

// TestCloseIsBoundedWhenBrokersAreGone: everything hangs, and nothing stays.
func TestCloseIsBoundedWhenBrokersAreGone(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "m", 0, 10, 1)
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "all", out.has(10))
	f.Cluster.Close()
	eventually(t, "said", func() error {
		if source.Health() == nil {
			return errors.New("healthy without brokers")
		}
		return nil
	})
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatal("the pipeline does not stop")
	}
}
