package rabbitmq

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Defaults of a Config and a PublisherConfig.
const (
	DefaultPort           = 5672
	DefaultTLSPort        = 5671
	DefaultDialTimeout    = 15 * time.Second
	DefaultCloseTimeout   = 5 * time.Second
	DefaultHeartbeat      = 5 * time.Second
	DefaultAckTimeout     = 30 * time.Minute
	DefaultBackoffInitial = time.Second
	DefaultBackoffMax     = 30 * time.Second
	DefaultLagInterval    = 5 * time.Second
	DefaultConfirmTimeout = 30 * time.Second
	DefaultMaxBytes       = 128 << 20

	// MaxPrefetch is the most that the protocol can carry.
	MaxPrefetch = 65535
	// defaultPrefetch is used when no pipeline has told its bound.
	defaultPrefetch = 100
)

// Config describes a Producer: the consumer of one queue. Queue is required,
// everything else has a default.
type Config struct {
	// URL is amqp://user:password@host:port/vhost, or amqps:// for TLS. Special
	// characters are percent-encoded. Options after a "?" are refused: they are
	// fields here. It is not printed by anything in this package.
	URL string
	// Host, Port and VHost stand in place of URL. Default localhost, 5672 (5671
	// with TLS) and "/".
	Host  string
	Port  int
	VHost string
	// Credentials is asked at each dial, and goes before the user of the URL.
	// Default guest, guest.
	Credentials CredentialsProvider
	// TLS makes the connection encrypted. Its ServerName defaults to the host.
	TLS *tls.Config
	// ConnectionName is shown by the broker's management. Default "broadway"
	// and the queue.
	ConnectionName string
	// DialTimeout bounds one attempt to connect, declare and consume. Default
	// 15 s.
	DialTimeout time.Duration
	// CloseTimeout bounds the end of a session: its last acknowledgements and
	// the closing of channel and connection. Default 5 s.
	CloseTimeout time.Duration
	// Heartbeat is how often each side shows that it lives; a dead connection
	// is noticed after one and a half of it. At least 1 s, default 5 s.
	Heartbeat time.Duration
	// Backoff is the wait between attempts to connect, after a first one at
	// once. Default 1 s to 30 s, factor 2, jitter 0.2. When only one of Initial
	// and Max is set, the other gives way to it.
	Backoff broadway.Backoff

	// Queue is the queue to consume. "" lets the broker choose a name, a new
	// one for each session, and needs Declare.
	Queue string
	// Declare declares the queue, in each session. Nil declares nothing: a
	// queue that does not exist is an error then.
	Declare *QueueDeclare
	// Exchanges are declared before the queue.
	Exchanges []ExchangeDeclare
	// Bindings bind the queue.
	Bindings []Binding
	// Consumer is how the queue is consumed.
	Consumer Consumer

	// Prefetch is how many messages the broker may deliver before one is
	// acknowledged: 1 to 65,535. Default: all that this producer may reserve of
	// the pipeline's MaxUnsettled. 0 never reaches the broker, where it would
	// mean no limit.
	//
	// It counts messages. Their bytes are bounded by this producer's part of the
	// pipeline's MaxUnsettledBytes: while so much is not settled the socket is not
	// read, so that what is in memory is that and one message more, whatever the
	// prefetch. Meanwhile the lag stays as it was last, and a channel that the
	// broker closes is noticed later. A broker whose send_timeout is set (it is
	// not by default) may cut a connection that is not read for so long.
	Prefetch int
	// AckTimeout is the broker's consumer_timeout, or the queue's
	// x-consumer-timeout. What waits for half of it is given back, before the broker
	// closes the channel, which gives back everything; retries that would outlast that
	// half are a mistake. The broker looks once a minute only, so shorter ones are for
	// tests. Default 30 min, which is RabbitMQ's; -1 means none.
	AckTimeout time.Duration
	// LagInterval is how often the broker is asked how many messages wait.
	// Default 5 s; -1 means never.
	LagInterval time.Duration

	// Logger defaults to slog.Default(). Payloads, header values and secrets
	// are never logged.
	Logger *slog.Logger
}

// Consumer is how a queue is consumed.
type Consumer struct {
	// Tag is the consumer's name at the broker. Those that follow it on the same
	// channel, after a pause for example, have ".2", ".3" and so on behind it.
	// Default: a random one.
	Tag string
	// Exclusive asks to be the queue's only consumer.
	Exclusive bool
	// Priority goes before consumers of lower priority (x-priority). Default 0.
	Priority int
	// Arguments are further arguments of basic.consume.
	Arguments Table
}

// String says which queue on which broker, without credentials.
func (c Config) String() string {
	return fmt.Sprintf("rabbitmq queue %q at %s", c.Queue, c.place())
}

// GoString is String: a Config must not print its URL.
func (c Config) GoString() string { return c.String() }

func (c Config) place() string {
	e, mistakes := c.server()
	if len(mistakes) > 0 {
		return "an invalid address"
	}
	return e.String()
}

// server is the part of c that says where and how to connect.
func (c Config) server() (endpoint, []error) {
	e := endpoint{
		host: c.Host, port: c.Port, vhost: c.VHost,
		credentials: c.Credentials, tls: c.TLS, name: c.ConnectionName,
		dialTimeout:  or(c.DialTimeout, DefaultDialTimeout),
		closeTimeout: or(c.CloseTimeout, DefaultCloseTimeout),
		heartbeat:    or(c.Heartbeat, DefaultHeartbeat),
	}
	if e.name == "" {
		e.name = "broadway " + c.Queue
	}
	return e, e.resolve(c.URL)
}

// withDefaults is c with every default in place. It is called on a valid c.
func (c Config) withDefaults() Config {
	c.Backoff = backoffDefaults(c.Backoff)
	c.AckTimeout = or(c.AckTimeout, DefaultAckTimeout)
	c.LagInterval = or(c.LagInterval, DefaultLagInterval)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// or is v, or its default when v is the zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// backoffDefaults completes b. One bound that is given moves the other's default
// out of its way.
func backoffDefaults(b broadway.Backoff) broadway.Backoff {
	switch {
	case b.Initial == 0 && b.Max == 0:
		b.Initial, b.Max = DefaultBackoffInitial, DefaultBackoffMax
	case b.Initial == 0:
		b.Initial = min(DefaultBackoffInitial, b.Max)
	case b.Max == 0:
		b.Max = max(DefaultBackoffMax, b.Initial)
	}
	b.Factor = or(b.Factor, broadway.DefaultBackoffFactor)
	b.Jitter = or(b.Jitter, broadway.DefaultBackoffJitter)
	return b
}
