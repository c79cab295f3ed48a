package worker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/acknowledgers"
	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/producers/kafka"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// member is one pipeline with its source.
type member struct {
	pipeline  *broadway.Pipeline
	publisher broadway.Publisher // nil without dead letters
	counts    func() map[string]int64
}

// newMember builds the pipeline called name.
func newMember(cfg Config, name string, s *sink) (*member, error) {
	m := new(member)
	config := broadway.Config{
		Name: name,
		Processor: broadway.ProcessorConfig{
			Handler: s.handle, Concurrency: cfg.Concurrency, MaxDemand: cfg.MaxDemand, Timeout: cfg.Timeout, Unordered: cfg.Unordered,
			RetryStuck: cfg.RetryStuck,
		},
		MaxUnsettled: cfg.MaxUnsettled, MaxUnsettledBytes: cfg.MaxUnsettledBytes,
		DrainTimeout: cfg.DrainTimeout, FailFast: cfg.FailFast,
		Observer: steps{s.fail},
		Logger:   slog.Default().With("member", name),
	}
	if cfg.NoLimits {
		config.MessageLimits = broadway.MessageLimits{Payload: -1, Key: -1, Headers: -1, HeaderBytes: -1}
	}
	if cfg.MaxPayload > 0 {
		config.MessageLimits.Payload = cfg.MaxPayload
	}
	if b := cfg.Batch; b != nil {
		config.Batchers = []broadway.BatcherConfig{{
			Reporter: s.report, Size: b.Size, Timeout: b.Timeout, Concurrency: b.Concurrency, ReportTimeout: b.ReportTimeout,
		}}
	}
	if cfg.Backoff > 0 {
		config.Failure.Backoff = broadway.Backoff{Initial: cfg.Backoff, Max: 16 * cfg.Backoff}
	}
	config.Failure.MaxAttempts = cfg.MaxAttempts
	var err error
	if config.Failure.Action, err = action(cfg.Action); err != nil {
		return nil, err
	}
	if err := m.source(cfg, name, &config); err != nil {
		return nil, err
	}
	if config.Failure.Action == broadway.ActionDeadLetter {
		config.Failure.DeadLetter = deadLetters{
			&acknowledgers.DeadLetters{Publisher: m.publisher, Destination: cfg.DeadLetter, Now: (&jumps{offsets: cfg.Clock}).now}, s.fail,
		}
	}
	m.pipeline, err = broadway.New(config)
	return m, err
}

// action finds the action of a name.
func action(name string) (broadway.Action, error) {
	if name == "" {
		return broadway.ActionDeadLetter, nil
	}
	for a := broadway.ActionNone; a <= broadway.ActionStopPipeline; a++ {
		if a.String() == name {
			return a, nil
		}
	}
	return broadway.ActionNone, fmt.Errorf("no action %q", name)
}

// source makes the producer, and the publisher of dead letters, which goes through the proxy as well.
func (m *member) source(cfg Config, name string, config *broadway.Config) error {
	switch {
	case cfg.Kafka != nil:
		k, err := kafkaConfig(*cfg.Kafka, name)
		if err != nil {
			return err
		}
		producer := kafka.NewProducer(k)
		config.Producers = []broadway.Producer{producer}
		m.counts = func() map[string]int64 { return kafkaCounts(producer.Stats()) }
		m.publisher = kafka.NewPublisher(kafka.PublisherConfig{Brokers: cfg.Kafka.Brokers, Topic: cfg.DeadLetter, ClientID: name, Now: (&jumps{offsets: cfg.Clock}).now})
		return nil
	case cfg.Rabbit != nil:
		r := cfg.Rabbit
		trusted, err := trust(r.CA)
		if err != nil {
			return err
		}
		declared := &rabbitmq.QueueDeclare{Durable: true, Passive: true, SingleActiveConsumer: r.Single}
		producer := rabbitmq.NewProducer(rabbitmq.Config{
			URL: r.URL, Queue: r.Queue, Declare: declared, Prefetch: r.Prefetch, ConnectionName: name, Heartbeat: r.Heartbeat, AckTimeout: r.AckTimeout,
			Backoff: broadway.Backoff{Max: r.BackoffMax}, TLS: trusted,
		})
		config.Producers = []broadway.Producer{producer}
		m.counts = func() map[string]int64 { return rabbitCounts(producer.Stats()) }
		m.publisher = rabbitmq.NewPublisher(rabbitmq.PublisherConfig{URL: r.URL, ConnectionName: name + " publisher", Backoff: broadway.Backoff{Max: r.BackoffMax}})
		return nil
	}
	return errors.New("no source")
}

// trust trusts what is in a file of PEM, and nothing else. No file: no TLS.
func trust(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

func kafkaConfig(k Kafka, name string) (kafka.Config, error) {
	cfg := kafka.Config{
		Brokers: k.Brokers, Topics: strings.Split(k.Topic, ","), Group: k.Group, ClientID: name, Window: k.Window,
		SessionTimeout: k.SessionTimeout, HeartbeatInterval: k.HeartbeatInterval, RebalanceTimeout: k.RebalanceTimeout,
		MetadataInterval: k.MetadataInterval, CommitInterval: k.CommitInterval, MaxBytes: k.MaxBytes, MaxBatchBytes: k.MaxBatchBytes,
		MaxPartitionBytes: max(k.MaxBytes, k.MaxPartitionBytes),
	}
	policies := []string{kafka.Fail.String(), kafka.ResumeEarliest.String(), kafka.ResumeLatest.String()}
	if at := slices.Index(policies, k.OutOfRange); at >= 0 {
		cfg.OutOfRange = []kafka.OutOfRange{kafka.Fail, kafka.ResumeEarliest, kafka.ResumeLatest}[at]
	} else if k.OutOfRange != "" {
		return cfg, fmt.Errorf("no policy %q", k.OutOfRange)
	}
	if k.Corrupt == "skip" {
		cfg.Corrupt = kafka.SkipBatch
	}
	if k.ReadCommitted {
		cfg.Isolation = kafka.ReadCommitted
	}
	return cfg, nil
}

func kafkaCounts(s kafka.Stats) map[string]int64 {
	return map[string]int64{
		"generations": s.Generations, "fenced": s.Fenced, "abandoned": s.Abandoned, "repeats": s.Repeats, "rewinds": s.Rewinds,
		"commits": s.Commits, "commits_failed": s.CommitsFailed, "exchanges": s.Exchanges, "exchanges_failed": s.ExchangesFailed,
		"out_of_range": s.OutOfRange, "corrupt": s.CorruptBatches, "skipped_batches": s.SkippedBatches, "skipped_offsets": s.SkippedOffsets,
	}
}

func rabbitCounts(s rabbitmq.Stats) map[string]int64 {
	return map[string]int64{"sessions": s.Sessions, "stale": s.Stale, "returned": s.Returned, "refused": s.Refused}
}

// run runs the pipeline until ctx ends.
func (m *member) run(ctx context.Context) error {
	err := m.pipeline.Run(ctx)
	if m.publisher != nil {
		err = errors.Join(err, m.publisher.Close())
	}
	return err
}

// pipelineCounts are the counts of a pipeline, under names of their own.
func pipelineCounts(s broadway.Stats) map[string]int64 {
	return map[string]int64{
		"stuck": int64(len(s.Stuck)), "late": s.Late,
		"fetched": s.Fetched, "succeeded": s.Succeeded, "failed": s.Failed, "dead_lettered": s.DeadLettered, "released": s.Released,
		"retried": s.Retried, "stale_settles": s.Stale, "settled_twice": s.SettledTwice, "highest_unsettled": int64(s.HighestUnsettled),
		"oldest_ms": int64(s.OldestUnsettled / time.Millisecond), "parked": int64(s.Processor.Parked), "busy": int64(s.Processor.Busy),
	}
}
