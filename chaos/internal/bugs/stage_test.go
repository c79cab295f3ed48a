package bugs

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/rig"
	"github.com/gobroadway/gobroadway/chaos/internal/wire"
)

// messages is how many each consumer gets: of five keys, all in one partition or queue.
const messages = 40

// stage is where one consumer performs: a topic or queue of its own, with ledgers.
type stage struct {
	t        *testing.T
	kafka    *rig.Kafka // one of these two
	rabbit   *rig.RabbitMQ
	proxy    *rig.Proxy
	name     string // of topic or queue, and group
	dir      string
	sink     *ledger.Writer
	recorder *rig.Recorder
	rules    check.Rules
	seq      int64
}

func newStage(t *testing.T, proxy *rig.Proxy, decoder func(int64, func(wire.Event)) wire.Decoder, name string) *stage {
	t.Helper()
	s := &stage{t: t, proxy: proxy, name: name, dir: t.TempDir(), rules: check.Rules{Source: name, Ordered: true}}
	var err error
	s.sink, err = ledger.Create(s.dir, ledger.KindSink)
	s.must(err)
	s.recorder, err = rig.Record(s.dir, decoder, nil)
	s.must(err)
	proxy.Tap(s.recorder.Open)
	return s
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// newKafkaStage makes a topic, full unless it is to be empty.
func newKafkaStage(t *testing.T, kafka *rig.Kafka, name string, n int) *stage {
	t.Helper()
	s := newStage(t, kafka.Proxy, wire.NewKafka, name)
	s.kafka, s.rules.Group = kafka, name
	s.must(kafka.CreateTopic(t.Context(), name, 1, nil))
	if n > 0 {
		s.must(load.Kafka(t.Context(), kafka.Direct(), load.Spec{Dir: s.dir, Run: name, Source: name, Messages: n, Keys: 5, Producers: 1}, new(load.Sent)))
	}
	return s
}

// newRabbitStage makes a queue that is full, and one for dead letters.
func newRabbitStage(t *testing.T, rabbit *rig.RabbitMQ, name string) *stage {
	t.Helper()
	s := newStage(t, rabbit.Proxy, wire.NewAMQP, name)
	s.rabbit = rabbit
	s.must(rabbit.CreateQueue(name, nil))
	s.must(rabbit.CreateQueue(name+"-dead", nil))
	s.must(load.RabbitMQ(t.Context(), rabbit.Direct(), load.Spec{Dir: s.dir, Run: name, Source: name, Messages: messages, Keys: 5, Producers: 1}, new(load.Sent)))
	return s
}

// saw writes a success into the sink.
func (s *stage) saw(o ledger.Observation, body []byte) {
	s.t.Helper()
	if o.ID == "" {
		o.ID, o.Key, o.KeySeq, _ = load.Parse(body) // a body that does not name itself has no id: that is what is looked for
	}
	if o.Sum == "" {
		o.Sum = ledger.Sum(body)
	}
	s.seq++
	o.Source, o.Stage, o.Seq, o.PID, o.At = s.name, ledger.Success, s.seq, os.Getpid(), ledger.Now()
	s.must(s.sink.Append(o))
}

// fault journals something that excuses repeats.
func (s *stage) fault(kind string, do func()) {
	s.t.Helper()
	from := ledger.Now()
	do()
	s.write(ledger.KindFaults, ledger.Fault{Kind: kind, From: from, Until: ledger.Now()})
	s.rules.Duplicates = messages
}

func (s *stage) write(kind string, entries ...any) {
	s.t.Helper()
	w, err := ledger.Create(s.dir, kind)
	s.must(err)
	for _, entry := range entries {
		s.must(w.Append(entry))
	}
	s.must(w.Close())
}

// judge drains what is left, and lets the checker decide.
func (s *stage) judge() check.Result {
	s.t.Helper()
	s.proxy.CutAll()
	deadline := time.Now().Add(10 * time.Second)
	for s.proxy.Open() > 0 {
		if time.Now().After(deadline) {
			s.t.Fatal("connections stay open")
		}
		<-time.After(5 * time.Millisecond)
	}
	s.proxy.Tap(nil)
	s.must(errors.Join(s.recorder.Close(), s.sink.Close()))
	end := s.leftovers(s.t.Context())
	e, err := check.Read(s.dir)
	s.must(err)
	e.Rules, e.End = s.rules, end
	return check.Check(e)
}

func (s *stage) leftovers(ctx context.Context) (end check.End) {
	s.t.Helper()
	residual, dead := load.Drain{Dir: s.dir, Kind: ledger.KindResidual}, load.Drain{Dir: s.dir, Kind: ledger.KindDead}
	if s.rabbit != nil {
		n, err := load.DrainRabbitMQ(ctx, s.rabbit.Direct(), s.name, residual)
		s.must(err)
		end.Ready = int64(n)
		_, err = load.DrainRabbitMQ(ctx, s.rabbit.Direct(), s.name+"-dead", dead)
		s.must(err)
		return end
	}
	positions, err := s.kafka.Positions(ctx, s.name, s.name)
	s.must(err)
	at := positions[0]
	from := max(at.Start, at.Committed)
	end.Lag = at.End - from
	_, err = load.DrainKafka(ctx, s.kafka.Direct(), s.name, residual, map[int32]int64{0: from}, map[int32]int64{0: at.End})
	s.must(err)
	s.write(ledger.KindOffsets, ledger.Sample{Source: s.name, Group: s.name, Committed: at.Committed, Start: at.Start, End: at.End, At: ledger.Now()})
	return end
}

// tombstone puts a message without a value into the topic. Its key is its id.
func (s *stage) tombstone(id string) {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Direct()), kgo.DefaultProduceTopic(s.name))
	s.must(err)
	defer client.Close()
	r, err := client.ProduceSync(s.t.Context(), &kgo.Record{Key: []byte(id)}).First()
	s.must(err)
	s.write(ledger.KindProduced, ledger.Produced{ID: id, Key: id, Sum: ledger.Sum(nil), Source: s.name, Offset: r.Offset, State: ledger.Acked, At: ledger.Now()})
}
