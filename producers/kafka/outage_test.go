package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// deaf are listeners whose connections can be made to swallow what they get: a
// broker that hangs, or a network that drops packets.
type deaf struct {
	mu    sync.Mutex
	conns []net.Conn
	off   chan struct{} // closed when nothing is heard any more
}

func (d *deaf) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return &deafListener{l, d}, err
}

type deafListener struct {
	net.Listener
	d *deaf
}

func (l *deafListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	wrapped := &deafConn{Conn: c, d: l.d, closed: make(chan struct{})}
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.d.conns = append(l.d.conns, wrapped)
	return wrapped, nil
}

type deafConn struct {
	net.Conn
	d      *deaf
	once   sync.Once
	closed chan struct{}
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && isClosed(c.d.off) {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestHungBrokers: no call without an end, no goroutine left behind.
func TestHungBrokers(t *testing.T) {
	d := &deaf{off: make(chan struct{})}
	f := newFake(t, kfake.ListenFn(d.listen), kfake.SeedTopics(3, "t"))
	f.produce(t, "t", "m", 0, 30, 3)
	source, out := kafka.NewProducer(f.config(t, "t")), newSink()
	r := run(t, pipeline(source, out))
	eventually(t, "all", out.has(30))
	close(d.off)
	t.Run("Connect heeds its context", func(t *testing.T) {
		p := kafka.NewProducer(f.config(t, "t"))
		ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errBad)
		defer cancel()
		if err := p.Connect(ctx); !errors.Is(err, errBad) {
			t.Errorf("Connect: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("the pipeline stops", func(t *testing.T) {
		r.cancel()
		select {
		case <-r.done:
		case <-time.After(patience):
			t.Fatal("it does not")
		}
	})
}

// TestAPositionBeyondTheEnd: the log is shorter than what the group has
// committed.
func TestAPositionBeyondTheEnd(t *testing.T) {
	for _, policy := range []kafka.OutOfRange{kafka.Fail, kafka.ResumeEarliest, kafka.ResumeLatest} {
		t.Run(policy.String(), func(t *testing.T) {
			f := newFake(t, kfake.SeedTopics(1, "t"))
			f.produce(t, "t", "m", 0, 10, 1)
			f.commit(t, "t", 100)
			cfg := f.config(t, "t")
			cfg.OutOfRange = policy
			source, out := kafka.NewProducer(cfg), newSink()
			r := run(t, pipeline(source, out))
			if policy == kafka.Fail {
				<-r.done
				if r.err == nil || !strings.Contains(r.err.Error(), "position 100 does not exist: the log begins at 0 and ends at 10") {
					t.Errorf("Run: %v", r.err)
				}
				return
			}
			want := 11
			if policy == kafka.ResumeLatest {
				want = 1
				eventually(t, "the end is committed", f.wantCommitted("t", 10))
			}
			f.produce(t, "t", "later", 0, 1, 1)
			eventually(t, "messages", out.has(want))
			eventually(t, "committed", f.wantCommitted("t", 11))
			r.stop(t)
			if s := source.Stats(); s.OutOfRange != 1 || s.SkippedOffsets != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// commit makes an offset that of group "g", as an administrator does.
func (f fake) commit(t testing.TB, topic string, offset int64) {
	t.Helper()
	f.commitAt(t, topic, offset, -1)
}

// commitAt commits an offset after a record of that leader epoch.
func (f fake) commitAt(t testing.TB, topic string, offset int64, epoch int32, metadata ...string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	part := kmsg.NewOffsetCommitRequestTopicPartition()
	part.Offset, part.LeaderEpoch = offset, epoch
	if len(metadata) > 0 {
		part.Metadata = &metadata[0]
	}
	top := kmsg.NewOffsetCommitRequestTopic()
	top.Topic, top.TopicID, top.Partitions = topic, f.TopicInfo(topic).TopicID, []kmsg.OffsetCommitRequestTopicPartition{part}
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.Topics = "g", []kmsg.OffsetCommitRequestTopic{top}
	response, err := request.RequestWith(t.Context(), client)
	if err != nil || response.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("commit: %v %+v", err, response)
	}
}

// TestARealBrokerIsKilledAndCut: it comes back each time, and so does the
// producer.
func TestARealBrokerIsKilledAndCut(t *testing.T) {
	b := brokers.Exclusive(t).Kafka()
	topic := b.Topic(t, 3)
	cfg := config(t, b.KafkaBroker, topic)
	source, out := kafka.NewProducer(cfg), newSink()
	r := run(t, pipeline(source, out))
	total := 0
	produce := func() {
		b.Produce(t, topic, numbered(fmt.Sprint(total), 300, 30, 3)...)
		total += 300
	}
	produce()
	eventually(t, "messages at first", out.has(total))

	b.Kill(t)
	eventually(t, "the outage is said", func() error {
		if source.Health() == nil {
			return errors.New("healthy without a broker")
		}
		return nil
	})
	b.Start(t)
	produce()
	eventually(t, "messages after the kill", out.has(total))

	b.Cut()
	eventually(t, "the cut is said", func() error {
		if source.Health() == nil {
			return errors.New("healthy without a network")
		}
		return nil
	})
	b.Heal()
	produce()
	eventually(t, "messages after the cut", out.has(total))
	eventually(t, "committed", committedToEnd(t, b.KafkaBroker, cfg.Group, topic))
	eventually(t, "healthy", healthy(source))
	r.stop(t)
}

// removeOffsets takes away what group "g" has committed, as an administrator does.
func (f fake) removeOffsets(t testing.TB, topic string, partition int32) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	part := kmsg.NewOffsetDeleteRequestTopicPartition()
	part.Partition = partition
	top := kmsg.NewOffsetDeleteRequestTopic()
	top.Topic, top.Partitions = topic, []kmsg.OffsetDeleteRequestTopicPartition{part}
	request := kmsg.NewPtrOffsetDeleteRequest()
	request.Group, request.Topics = "g", []kmsg.OffsetDeleteRequestTopic{top}
	response, err := request.RequestWith(t.Context(), client)
	if err != nil || response.ErrorCode != 0 || response.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("removing offsets: %v %+v", err, response)
	}
}
