package kafka_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// cutLog makes the log of partition 0 end before the first batch that begins at
// offset or later, as a broker finds it that has lost its last writes. It must be
// stopped.
func cutLog(t *testing.T, b brokers.OwnKafka, topic string, offset int64) {
	t.Helper()
	dir := b.LogDir(topic, 0)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".index", ".timeindex", ".snapshot": // are made anew from the log
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(dir, "00000000000000000000.log")
	log, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for at < len(log) && int64(binary.BigEndian.Uint64(log[at:])) < offset {
		at += 12 + int(binary.BigEndian.Uint32(log[at+8:]))
	}
	if at >= len(log) {
		t.Fatalf("no batch begins at %d or later", offset)
	}
	if err := os.Truncate(file, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// batched writes 100 messages, 5 to a batch.
func batched(t *testing.T, b *brokers.KafkaBroker, topic, prefix string) {
	t.Helper()
	for i := range heldTotal / 5 {
		b.Produce(t, topic, numbered(fmt.Sprintf("%s-%d", prefix, i), 5, 1, 1)...)
	}
}

// wantOnce fails unless all 100 messages of batched came, each once.
func wantOnce(t *testing.T, out *sink, prefix string) {
	t.Helper()
	out.mu.Lock()
	defer out.mu.Unlock()
	n := 0
	for payload, times := range out.seen {
		if strings.HasPrefix(payload, prefix) {
			n++
			if times != 1 {
				t.Errorf("%q came %d times", payload, times)
			}
		}
	}
	if n != heldTotal {
		t.Errorf("%d messages %q came", n, prefix)
	}
}

// TestABrokerThatLostItsLastWrites comes back, and its log grows over the position
// again. Nothing of what is written then is passed over: not by a consumer that runs, nor
// by one that begins at its commit, nor by one whose commit tells what had settled above.
func TestABrokerThatLostItsLastWrites(t *testing.T) {
	b := brokers.Exclusive(t).Kafka()
	topics := map[string]string{"running": b.Topic(t, 1), "stopped": b.Topic(t, 1), "noted": b.Topic(t, 1)}
	configs, outs := map[string]kafka.Config{}, map[string]*sink{}
	for name, topic := range topics {
		batched(t, b.KafkaBroker, topic, "old")
		configs[name], outs[name] = config(t, b.KafkaBroker, topic), newSink()
	}
	source := kafka.NewProducer(configs["running"])
	r := run(t, pipeline(source, outs["running"]))

	stopped := run(t, pipeline(kafka.NewProducer(configs["stopped"]), outs["stopped"]))
	for _, name := range []string{"running", "stopped"} {
		eventually(t, name, outs[name].has(heldTotal))
		eventually(t, name, committedToEnd(t, b.KafkaBroker, configs[name].Group, topics[name]))
	}
	stopped.stop(t)

	held := newGate(outs["noted"], "old-0-3")
	c := pipeline(kafka.NewProducer(configs["noted"]), outs["noted"])
	c.Processor.Handler, c.Processor.Unordered = held.handle, true
	noted := run(t, c)
	<-held.entered
	tells(t, b.KafkaBroker, configs["noted"].Group, topics["noted"], heldTotal-4)
	noted.Abort()
	close(held.open)
	<-noted.done

	b.Stop(t)
	for _, topic := range topics {
		cutLog(t, b, topic, 50)
	}
	b.Start(t)
	for _, topic := range topics {
		batched(t, b.KafkaBroker, topic, "new")
	}
	stats := func(name string, source *kafka.Producer, r *running) kafka.Stats {
		eventually(t, name, committedToEnd(t, b.KafkaBroker, configs[name].Group, topics[name]))
		r.stop(t)
		wantOnce(t, outs[name], "new")
		s := source.Stats()
		if s.SkippedOffsets != 0 || s.OutOfRange != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		return s
	}
	if s := stats("running", source, r); s.Truncations != 1 {
		t.Errorf("while it runs: %+v, want one truncation", s)
	}
	source = kafka.NewProducer(configs["stopped"])
	if s := stats("stopped", source, run(t, pipeline(source, outs["stopped"]))); s.Truncations != 1 {
		t.Errorf("at its commit: %+v, want one truncation", s)
	}
	source = kafka.NewProducer(configs["noted"])
	if s := stats("noted", source, run(t, pipeline(source, outs["noted"]))); s.Truncations != 0 || s.DoubtedMetadata != 1 {
		t.Errorf("with what had settled: %+v, want it doubted", s)
	}
	for _, name := range []string{"running", "stopped"} {
		wantOnce(t, outs[name], "old")
	}
}

// TestWhatHasSettledIsNotTakenForLaterRecords: the log is cut after its leader has
// confirmed that it holds what a commit lists as settled, and before that was read.
func TestWhatHasSettledIsNotTakenForLaterRecords(t *testing.T) {
	f := newFake(t, kfake.SeedTopics(1, "t"))
	f.produce(t, "t", "old", 0, 10, 1)
	if err := f.MoveTopicPartition("t", 0, (f.LeaderFor("t", 0)+1)%3); err != nil {
		t.Fatal(err)
	}
	f.produce(t, "t", "new", 0, 10, 1) // under the next leader epoch
	// 7, 8 and 11 to 14, all under epoch 0.
	f.commitAt(t, "t", 5, 0, kafka.Tell(f.TopicInfo("t").TopicID, 5, 0, 7, 9, 11, 15))
	f.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		response := r.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
		p.LeaderEpoch, p.EndOffset = 0, 15
		of := kmsg.NewOffsetForLeaderEpochResponseTopic()
		of.Topic, of.Partitions = "t", append(of.Partitions, p)
		response.Topics = append(response.Topics, of)
		return response, nil, true
	})
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "committed", f.wantCommitted("t", 20))
	r.stop(t)
	want := []string{"old-5", "old-6", "old-9"}
	for i := range 10 {
		want = append(want, fmt.Sprint("new-", i))
	}
	slices.Sort(want)
	if got := out.payloads(); !slices.Equal(got, want) {
		t.Errorf("came: %v, want %v", got, want)
	}
	if s := source.Stats(); s.Truncations != 1 || s.SkippedOffsets != 0 || s.DoubtedMetadata != 0 {
		t.Errorf("%+v", s)
	}
}
