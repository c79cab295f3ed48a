package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/brokers"
	"github.com/gobroadway/gobroadway/pipelines"
	pipelineskafka "github.com/gobroadway/gobroadway/pipelines/kafka"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry is one with the kind, and a handler and a reporter that do nothing.
func registry() *pipelines.Registry {
	r := pipelines.NewRegistry()
	pipelineskafka.Register(r)
	r.Logger(slog.New(slog.DiscardHandler))
	r.Processor("render", func(context.Context, *broadway.Message) error { return nil })
	return r
}

// decoded is the Config of a section, by a kind that keeps it.
func decoded(t *testing.T, section string, keep func(*pipelines.Section) error) error {
	t.Helper()
	r := registry()
	r.Source("kept", func(s *pipelines.Section) (broadway.Producer, error) {
		if err := keep(s); err != nil {
			return nil, err
		}
		return nil, errors.New("kept")
	})
	_, err := pipelines.Parse("x.yaml", []byte("producers:\n  - kept:\n"+section+"processor: {handler: render}\n"), r)
	require.Error(t, err)
	if strings.HasSuffix(err.Error(), "producers[0].kept: kept") {
		return nil
	}
	return err
}

func TestEveryKeyOfASourceArrives(t *testing.T) {
	var got kafka.Config
	require.NoError(t, decoded(t, `
      brokers: [a:1, b:2]
      topics: [x, y]
      group: g
      start_at: 2026-01-02T15:04:05Z
      out_of_range: latest
      corrupt: skip_batch
      isolation: read_committed
      foreign_metadata: fail
      session_timeout: 1s
      rebalance_timeout: 2s
      heartbeat_interval: 3s
      metadata_interval: 4s
      max_wait: 5s
      min_bytes: 6
      max_bytes: 7KiB
      max_partition_bytes: 8KiB
      max_batch_bytes: 9KiB
      window: 10
      commit_interval: 11s
      client_id: c
      rack: r
`, func(s *pipelines.Section) (err error) { got, err = pipelineskafka.SourceConfig(s); return err }))
	require.NotNil(t, got.Logger)
	got.Logger = nil
	require.Equal(t, kafka.Config{
		Brokers: []string{"a:1", "b:2"}, Topics: []string{"x", "y"}, Group: "g",
		StartAt:    kafka.At(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)),
		OutOfRange: kafka.ResumeLatest, Corrupt: kafka.SkipBatch, Isolation: kafka.ReadCommitted, ForeignMetadata: kafka.FailOnForeign,
		SessionTimeout: time.Second, RebalanceTimeout: 2 * time.Second, HeartbeatInterval: 3 * time.Second, MetadataInterval: 4 * time.Second,
		MaxWait: 5 * time.Second, MinBytes: 6, MaxBytes: 7 << 10, MaxPartitionBytes: 8 << 10, MaxBatchBytes: 9 << 10,
		Window: 10, CommitInterval: 11 * time.Second, ClientID: "c", Rack: "r",
	}, got)
}

func TestEveryKeyOfAPublisherArrives(t *testing.T) {
	var got kafka.PublisherConfig
	require.NoError(t, decoded(t, `
      brokers: [a:1]
      topic: dead
      timeout: 1s
      batch_bytes: 2KiB
      compression: zstd
      client_id: c
      tls:
`, func(s *pipelines.Section) (err error) { got, err = pipelineskafka.PublisherConfig(s); return err }))
	require.NotNil(t, got.TLS, "tls alone is encryption with the defaults")
	require.False(t, got.TLS.InsecureSkipVerify)
	require.NotNil(t, got.Logger)
	got.TLS, got.Logger = nil, nil
	require.Equal(t, kafka.PublisherConfig{
		Brokers: []string{"a:1"}, Topic: "dead", Timeout: time.Second, BatchBytes: 2 << 10, Compression: kafka.Zstd, ClientID: "c",
	}, got)
}

func TestStartAt(t *testing.T) {
	for text, want := range map[string]kafka.Start{"earliest": kafka.Earliest(), "latest": kafka.Latest()} {
		var got kafka.Config
		require.NoError(t, decoded(t, "      start_at: "+text+"\n",
			func(s *pipelines.Section) (err error) { got, err = pipelineskafka.SourceConfig(s); return err }))
		require.Equal(t, want, got.StartAt)
	}
}

// A password or token must be what its file says at the time of the dial.
func TestCredentialsAreReadAtEachDial(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for key, mechanism := range map[string]kafka.Mechanism{
		"password_file": kafka.ScramSHA512, "token_file": kafka.OAuthBearer,
	} {
		require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
		var got kafka.Config
		require.NoError(t, decoded(t, fmt.Sprintf("      sasl: {mechanism: %s, username: u, %s: %s}\n", mechanism, key, file),
			func(s *pipelines.Section) (err error) { got, err = pipelineskafka.SourceConfig(s); return err }))
		require.Equal(t, mechanism, got.SASL.Mechanism)
		for _, want := range []string{"first", "second"} {
			require.NoError(t, os.WriteFile(file, []byte(want+"\n"), 0o600))
			c, err := got.SASL.Credentials(t.Context())
			require.NoError(t, err)
			if mechanism == kafka.OAuthBearer {
				require.Equal(t, want, string(c.Token))
				continue
			}
			require.Equal(t, want, string(c.Password))
			require.Equal(t, "u", c.Username)
		}
		require.NoError(t, os.Remove(file))
		_, err := got.SASL.Credentials(t.Context())
		require.Error(t, err)
	}
}

// run runs the file until n messages were handled.
func run(t *testing.T, text string, n int64, handle broadway.Processor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var handled atomic.Int64
	r := registry()
	r.Processor("handle", func(ctx context.Context, m *broadway.Message) error {
		if handled.Add(1) == n {
			defer cancel()
		}
		return handle(ctx, m)
	})
	list, err := pipelines.Parse("x.yaml", []byte(text), r)
	require.NoError(t, err)
	require.NoError(t, list[0].Run(ctx))
	require.Equal(t, n, handled.Load(), "before the time was over")
}

func TestAFileConsumesAndSendsDeadLetters(t *testing.T) {
	for name, find := range map[string]func(testing.TB) *brokers.KafkaBroker{"embedded": brokers.Embedded, "real": brokers.Kafka} {
		t.Run(name, func(t *testing.T) {
			b := find(t)
			topic, dead, group := b.Topic(t, 2), b.Topic(t, 1), b.Group(t)
			b.Produce(t, topic, brokers.Record{Value: []byte("good")}, brokers.Record{Partition: 1, Key: []byte("k"), Value: []byte("bad")})
			run(t, fmt.Sprintf(`
producers:
  - kafka: {brokers: [%[1]q], topics: [%[2]s], group: %[4]s}
processor: {handler: handle}
failure:
  action: dead_letter
  dead_letter:
    kafka: {brokers: [%[1]q], topic: %[3]s}
`, b.Addr(), topic, dead, group), 2, func(_ context.Context, m *broadway.Message) error {
				if string(m.Payload) == "bad" {
					return broadway.Reject(errors.New("bad"))
				}
				return nil
			})
			letters := b.Records(t, dead)
			require.Len(t, letters, 1)
			require.Equal(t, "bad", string(letters[0].Value))
			require.Equal(t, "k", string(letters[0].Key))
			require.Contains(t, letters[0].Headers, brokers.Header{Key: acknowledgers.HeaderReason, Value: []byte("bad")})
			require.Equal(t, []int64{1, 1}, b.CommittedOffsets(t, group, topic))
		})
	}
}

func TestAFileLogsInWithItsPasswordFile(t *testing.T) {
	b := brokers.Kafka(t)
	addr, user, password := b.SASL(t)
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	topic, group := b.Topic(t, 1), b.Group(t)
	b.Produce(t, topic, brokers.Record{Value: []byte("x")})
	run(t, fmt.Sprintf(`
producers:
  - kafka:
      brokers: [%q]
      topics: [%s]
      group: %s
      sasl: {mechanism: SCRAM-SHA-256, username: %s, password_file: %s}
processor: {handler: handle}
failure: {action: drop}
`, addr, topic, group, user, file), 1, func(context.Context, *broadway.Message) error { return nil })
}
