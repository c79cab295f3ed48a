package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Defaults of a PublisherConfig.
const (
	DefaultPublishTimeout = 30 * time.Second
	DefaultBatchBytes     = 1_000_000
)

// PublisherConfig describes a [Publisher]. Zero values mean the defaults that
// are stated.
type PublisherConfig struct {
	// Brokers are the addresses to start from, host:port. Required.
	Brokers []string
	// Topic is where records go that name no Destination. Without it a record
	// must name one.
	Topic string
	// Timeout bounds one Publish, besides its context. Default 30 s.
	Timeout time.Duration
	// BatchBytes is how much one batch holds at most, below the broker's
	// message.max.bytes; a single record may be larger, and is the broker's to
	// judge. Default 1,000,000.
	BatchBytes int
	// Compression of batches. Default none.
	Compression Compression
	// ClientID names this client in the broker's logs and quotas. Default
	// "broadway".
	ClientID string
	// TLS encrypts the connections. Nil means plain ones.
	TLS *tls.Config
	// SASL authenticates each connection. Nil means none.
	SASL *SASL
	// Now is the clock that records are stamped by. Default time.Now. Where the
	// broker finds it wrong, records are written without a time: consumers then
	// see -1, and retention goes by the broker's clock.
	Now func() time.Time
	// Logger defaults to slog.Default(). It is told, by the first Publish, what
	// makes the connections unsafe.
	Logger *slog.Logger
}

func (c PublisherConfig) withDefaults() PublisherConfig {
	c.Timeout = cmp.Or(c.Timeout, DefaultPublishTimeout)
	c.BatchBytes = cmp.Or(c.BatchBytes, DefaultBatchBytes)
	c.ClientID = cmp.Or(c.ClientID, DefaultClientID)
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c
}

func (c PublisherConfig) validate() error {
	errs := validateBrokers(c.Brokers)
	if reason := topicMistake(c.Topic); c.Topic != "" && reason != "" {
		errs = append(errs, fmt.Errorf("kafka: Topic: %q %s", c.Topic, reason))
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("kafka: Timeout: %s is negative", c.Timeout))
	}
	if c.BatchBytes < 1<<10 || c.BatchBytes > 1<<30 {
		errs = append(errs, fmt.Errorf("kafka: BatchBytes: %d is not within 1024 to 1073741824", c.BatchBytes))
	}
	if c.Compression > Zstd {
		errs = append(errs, fmt.Errorf("kafka: Compression: %d is no codec", c.Compression))
	}
	if err := tlsMistake(c.TLS); err != nil {
		errs = append(errs, err)
	}
	if c.SASL != nil {
		errs = append(errs, c.SASL.validate()...)
	}
	return errors.Join(errs...)
}

// Publisher writes records to topics: a [broadway.Publisher]. All in-sync
// replicas confirm each record before Publish returns. Make one with
// [NewPublisher].
//
// A record with a key goes to the partition that Java's client would choose;
// those without one go, per call, to one partition after the other. The records
// of one call and partition keep their order. Publishing is not idempotent: what
// is written again after a lost answer may stand twice.
//
// A record that is larger than the topic or the protocol allows fails with
// [broadway.ErrTooLarge]. A copy of a message of another broker has what that
// broker knows of it as headers: see [broadway.Propertied].
type Publisher struct {
	cfg     PublisherConfig
	invalid error
	wire    *wire
	table   *crc32.Table
	turn    atomic.Uint32 // for records without a key

	mu     sync.Mutex // protects following fields
	topics map[string]topicState
	calls  sync.WaitGroup // Publish under way; added to with mu
	used   bool           // Publish was called
	closed bool
}

var (
	_ broadway.Publisher = (*Publisher)(nil)
	_ broadway.Addressed = (*Publisher)(nil)
	_ broadway.Validator = (*Publisher)(nil)
)

// NewPublisher makes a publisher. It dials nothing until the first Publish;
// mistakes in cfg are returned by Validate, and by every Publish.
func NewPublisher(cfg PublisherConfig) *Publisher {
	cfg = cfg.withDefaults()
	return &Publisher{
		cfg:     cfg,
		invalid: cfg.validate(),
		wire:    newWire(endpoint{cfg.Brokers, cfg.ClientID, cfg.TLS, cfg.SASL, progressTimeout}),
		table:   crc32.MakeTable(crc32.Castagnoli),
		topics:  map[string]topicState{},
	}
}

// Validate reports every mistake of the config, joined.
func (p *Publisher) Validate() error { return p.invalid }

// HasDestination says that a record without a Destination goes to the config's Topic.
func (p *Publisher) HasDestination() bool { return p.cfg.Topic != "" }

var errClosed = errors.New("kafka: the publisher is closed")

// Publish returns nil once every record is confirmed, and a
// [*broadway.PublishError] otherwise: for a record that it names, either the
// broker has refused it, or nobody knows. It tries again what may succeed until
// ctx ends or Timeout has passed. It keeps nothing of records.
func (p *Publisher) Publish(ctx context.Context, records ...broadway.Record) error {
	if p.invalid != nil || len(records) == 0 {
		return p.invalid
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return errClosed
	}
	first := !p.used
	p.used = true
	p.calls.Add(1)
	p.mu.Unlock()
	defer p.calls.Done()
	if first {
		warn(p.cfg.Logger, p.cfg.TLS, p.cfg.SASL)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.Timeout, fmt.Errorf("kafka: not confirmed within %s", p.cfg.Timeout))
	defer cancel()
	job := newJob(p, records)
	for attempt := 1; job.waits(); attempt++ {
		progress := job.round(ctx, attempt > 1)
		if progress {
			attempt = 0 // what is left had to wait for its turn
			continue
		}
		if !job.waits() || !job.pause(ctx, attempt) {
			break
		}
	}
	return job.outcome(ctx)
}

// Close waits for calls of Publish that are under way, closes every connection,
// and returns within about 10 s.
func (p *Publisher) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	if !first {
		return nil
	}
	return p.wire.closeAfter(&p.calls)
}

// layout is what is known of topics; they are asked for when one is not known,
// or when the answer may be stale.
func (p *Publisher) layout(ctx context.Context, topics []string, stale bool) (map[string]topicState, error) {
	known := map[string]topicState{}
	p.mu.Lock()
	for _, topic := range topics {
		if state, ok := p.topics[topic]; ok {
			known[topic] = state
		}
	}
	p.mu.Unlock()
	if len(known) == len(topics) && !stale {
		return known, nil
	}
	states, err := p.wire.describe(ctx, topics)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for topic, state := range states {
		if state.err == nil {
			p.topics[topic] = state
		}
	}
	return states, nil
}
