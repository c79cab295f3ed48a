// Package kafka lets pipeline files have sources and publishers of the kind
// "kafka":
//
//	registry := pipelines.NewRegistry()
//	kafka.Register(registry)
//
// A source, with the defaults of producers/kafka where keys are left out:
//
//	producers:
//	  - kafka:
//	      brokers: [127.0.0.1:19092]     # required
//	      topics: [orders]               # required
//	      group: billing                 # required
//	      start_at: earliest             # or latest, or 2026-01-02T15:04:05Z
//	      out_of_range: fail             # or earliest, or latest
//	      corrupt: stop_partition        # or skip_batch
//	      isolation: read_uncommitted    # or read_committed
//	      foreign_metadata: overwrite    # or fail
//	      session_timeout: 30s
//	      rebalance_timeout: 30s
//	      heartbeat_interval: 3s
//	      metadata_interval: 10s
//	      max_wait: 250ms
//	      min_bytes: 1B
//	      max_bytes: 8MiB
//	      max_partition_bytes: 1MiB
//	      max_batch_bytes: 64MiB
//	      window: 1000                   # or four times max_unsettled
//	      commit_interval: 1s
//	      client_id: broadway
//	      rack: eu-1a
//	      tls: {ca_file: ca.pem}         # see pipelines.TLS
//	      sasl:
//	        mechanism: SCRAM-SHA-512     # or SCRAM-SHA-256, PLAIN, OAUTHBEARER
//	        username: billing
//	        password_file: password      # or password_env; see pipelines.Secret
//	        token_file: token            # or token_env; for OAUTHBEARER
//
// A publisher, which dead letters go to:
//
//	failure:
//	  action: dead_letter
//	  dead_letter:
//	    kafka:
//	      brokers: [127.0.0.1:19092]     # required
//	      topic: orders.dead             # required
//	      timeout: 30s
//	      batch_bytes: 1MB
//	      compression: none              # or gzip, snappy, zstd
//	      client_id: broadway            # tls and sasl as above
package kafka

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/producers/kafka"
)

// Register makes the kind "kafka" known to r, for sources and publishers.
func Register(r *pipelines.Registry) {
	r.Source("kafka", source)
	r.Publisher("kafka", publisher)
}

// connection is what sources and publishers share.
type connection struct {
	Brokers  []string       `yaml:"brokers"`
	ClientID string         `yaml:"client_id"`
	TLS      *pipelines.TLS `yaml:"tls"`
	SASL     *sasl          `yaml:"sasl"`
}

type sasl struct {
	Mechanism string           `yaml:"mechanism"`
	Username  string           `yaml:"username"`
	Password  pipelines.Secret `yaml:"password"`
	Token     pipelines.Secret `yaml:"token"`
}

type sourceSpec struct {
	connection `yaml:",inline"`
	Topics     []string `yaml:"topics"`
	Group      string   `yaml:"group"`

	StartAt    string `yaml:"start_at"`
	OutOfRange string `yaml:"out_of_range"`
	Corrupt    string `yaml:"corrupt"`
	Isolation  string `yaml:"isolation"`

	ForeignMetadata string `yaml:"foreign_metadata"`

	SessionTimeout    time.Duration `yaml:"session_timeout"`
	RebalanceTimeout  time.Duration `yaml:"rebalance_timeout"`
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval"`
	MetadataInterval  time.Duration `yaml:"metadata_interval"`

	MaxWait           time.Duration  `yaml:"max_wait"`
	MinBytes          pipelines.Size `yaml:"min_bytes"`
	MaxBytes          pipelines.Size `yaml:"max_bytes"`
	MaxPartitionBytes pipelines.Size `yaml:"max_partition_bytes"`
	MaxBatchBytes     pipelines.Size `yaml:"max_batch_bytes"`

	Window         int           `yaml:"window"`
	CommitInterval time.Duration `yaml:"commit_interval"`
	Rack           string        `yaml:"rack"`
}

func source(s *pipelines.Section) (broadway.Producer, error) {
	cfg, err := sourceConfig(s)
	if err != nil {
		return nil, err
	}
	return kafka.NewProducer(cfg), nil
}

func sourceConfig(s *pipelines.Section) (kafka.Config, error) {
	var spec sourceSpec
	if err := s.Decode(&spec); err != nil {
		return kafka.Config{}, err
	}
	return kafka.Config{
		Brokers: spec.Brokers, Topics: spec.Topics, Group: spec.Group,
		StartAt: startAt(s, spec.StartAt),
		OutOfRange: pipelines.Choose(s, "out_of_range", spec.OutOfRange, map[string]kafka.OutOfRange{
			"fail": kafka.Fail, "earliest": kafka.ResumeEarliest, "latest": kafka.ResumeLatest,
		}),
		Corrupt: pipelines.Choose(s, "corrupt", spec.Corrupt, map[string]kafka.Corrupt{
			"stop_partition": kafka.StopPartition, "skip_batch": kafka.SkipBatch,
		}),
		Isolation: pipelines.Choose(s, "isolation", spec.Isolation, map[string]kafka.Isolation{
			"read_uncommitted": kafka.ReadUncommitted, "read_committed": kafka.ReadCommitted,
		}),
		ForeignMetadata: pipelines.Choose(s, "foreign_metadata", spec.ForeignMetadata, map[string]kafka.ForeignMetadata{
			"overwrite": kafka.OverwriteForeign, "fail": kafka.FailOnForeign,
		}),
		SessionTimeout: spec.SessionTimeout, RebalanceTimeout: spec.RebalanceTimeout,
		HeartbeatInterval: spec.HeartbeatInterval, MetadataInterval: spec.MetadataInterval,
		MaxWait: spec.MaxWait, MinBytes: int(spec.MinBytes), MaxBytes: int(spec.MaxBytes),
		MaxPartitionBytes: int(spec.MaxPartitionBytes), MaxBatchBytes: int(spec.MaxBatchBytes),
		Window: spec.Window, CommitInterval: spec.CommitInterval,
		ClientID: spec.ClientID, Rack: spec.Rack,
		TLS: spec.tls(s), SASL: spec.sasl(s), Logger: s.Logger(),
	}, nil
}

// startAt reads "earliest", "latest" or a time.
func startAt(s *pipelines.Section, text string) kafka.Start {
	switch text {
	case "", "earliest":
		return kafka.Earliest()
	case "latest":
		return kafka.Latest()
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		_ = s.Fail("start_at", "want earliest, latest or a time such as 2026-01-02T15:04:05Z")
		return kafka.Earliest()
	}
	return kafka.At(at)
}

func publisher(s *pipelines.Section) (broadway.Publisher, error) {
	cfg, err := publisherConfig(s)
	if err != nil {
		return nil, err
	}
	return kafka.NewPublisher(cfg), nil
}

func publisherConfig(s *pipelines.Section) (kafka.PublisherConfig, error) {
	var spec struct {
		connection  `yaml:",inline"`
		Topic       string         `yaml:"topic"`
		Timeout     time.Duration  `yaml:"timeout"`
		BatchBytes  pipelines.Size `yaml:"batch_bytes"`
		Compression string         `yaml:"compression"`
	}
	if err := s.Decode(&spec); err != nil {
		return kafka.PublisherConfig{}, err
	}
	if spec.Topic == "" {
		return kafka.PublisherConfig{}, s.Fail("topic", "is required: where dead letters go")
	}
	return kafka.PublisherConfig{
		Brokers: spec.Brokers, Topic: spec.Topic, Timeout: spec.Timeout, BatchBytes: int(spec.BatchBytes),
		Compression: pipelines.Choose(s, "compression", spec.Compression, map[string]kafka.Compression{
			"none": kafka.Uncompressed, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "zstd": kafka.Zstd,
		}),
		ClientID: spec.ClientID, TLS: spec.tls(s), SASL: spec.sasl(s), Logger: s.Logger(),
	}, nil
}

func (c *connection) tls(s *pipelines.Section) *tls.Config { return c.TLS.Config(s, "tls") }

// sasl is the section sasl. The secrets are read at each dial, so that rotated
// ones are used.
func (c *connection) sasl(s *pipelines.Section) *kafka.SASL {
	if c.SASL == nil {
		return nil
	}
	auth := *c.SASL
	c.check(s, auth)
	return &kafka.SASL{
		Mechanism: kafka.Mechanism(auth.Mechanism),
		Credentials: func(context.Context) (kafka.Credentials, error) {
			secret := auth.Password
			if auth.Mechanism == string(kafka.OAuthBearer) {
				secret = auth.Token
			}
			value, err := secret.Read()
			if err != nil {
				return kafka.Credentials{}, err
			}
			if auth.Mechanism == string(kafka.OAuthBearer) {
				return kafka.Credentials{Token: kafka.Secret(value)}, nil
			}
			return kafka.Credentials{Username: auth.Username, Password: kafka.Secret(value)}, nil
		},
	}
}

// check reports what a mechanism needs and does not have.
func (c *connection) check(s *pipelines.Section, auth sasl) {
	switch auth.Mechanism {
	case string(kafka.OAuthBearer):
		if !auth.Token.Set() {
			_ = s.Fail("sasl", "OAUTHBEARER needs token_file or token_env")
		}
	case string(kafka.Plain), string(kafka.ScramSHA256), string(kafka.ScramSHA512):
		if auth.Username == "" || !auth.Password.Set() {
			_ = s.Fail("sasl", "%s needs username, and password_file or password_env", auth.Mechanism)
		}
		if auth.Mechanism == string(kafka.Plain) && c.TLS == nil {
			s.Warn("sasl.mechanism", "PLAIN without tls sends the password unencrypted")
		}
	}
}
