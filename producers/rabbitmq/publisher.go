package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

var (
	// ErrUnroutable is why a message was not published that no queue took.
	ErrUnroutable = errors.New("rabbitmq: no queue takes the message")
	// ErrNacked is why a message was not published that the broker refused.
	ErrNacked = errors.New("rabbitmq: the broker refused the message")
	// ErrUnconfirmed is why it is not known whether a message was published: it
	// may have been. Publishing it again, with the same id, is safe for readers
	// that look at the id.
	ErrUnconfirmed = errors.New("rabbitmq: not confirmed")
)

// PublisherConfig describes a Publisher. Everything has a default.
type PublisherConfig struct {
	// URL, Host, Port, VHost, Credentials, TLS, DialTimeout, CloseTimeout,
	// Heartbeat and Backoff are as in [Config].
	URL          string
	Host         string
	Port         int
	VHost        string
	Credentials  CredentialsProvider
	TLS          *tls.Config
	DialTimeout  time.Duration
	CloseTimeout time.Duration
	Heartbeat    time.Duration
	Backoff      broadway.Backoff
	// ConnectionName is shown by the broker's management. Default "broadway
	// publisher".
	ConnectionName string

	// Exchange is where messages go that name none. Default: the default
	// exchange, where the routing key names a queue.
	Exchange string
	// RoutingKey is that of records without a Destination.
	RoutingKey string
	// Exchanges, Queues and Bindings are declared in each session.
	Exchanges []ExchangeDeclare
	Queues    []QueueDeclare
	Bindings  []Binding

	// AllowUnroutable counts messages as published that no queue took.
	// Default: such a message fails with ErrUnroutable.
	AllowUnroutable bool
	// ConfirmTimeout bounds a Publish: the wait for a connection, and for the
	// broker's confirms. Default 30 s.
	ConfirmTimeout time.Duration
	// MaxBytes is the largest body that is sent: more fails with
	// broadway.ErrTooLarge, as does what the broker's own max_message_size
	// refuses. Default 128 MiB, as RabbitMQ 3 has it; RabbitMQ 4 has 16 MiB.
	MaxBytes int

	// Logger is as in [Config].
	Logger *slog.Logger
}

// String says where it publishes, without credentials.
func (c PublisherConfig) String() string {
	e, mistakes := c.server()
	if len(mistakes) > 0 {
		return "rabbitmq publisher at an invalid address"
	}
	return fmt.Sprintf("rabbitmq exchange %q at %v", c.Exchange, e)
}

// GoString is String: a PublisherConfig must not print its URL.
func (c PublisherConfig) GoString() string { return c.String() }

func (c PublisherConfig) server() (endpoint, []error) {
	e := endpoint{
		host: c.Host, port: c.Port, vhost: c.VHost,
		credentials: c.Credentials, tls: c.TLS,
		name:         or(c.ConnectionName, "broadway publisher"),
		dialTimeout:  or(c.DialTimeout, DefaultDialTimeout),
		closeTimeout: or(c.CloseTimeout, DefaultCloseTimeout),
		heartbeat:    or(c.Heartbeat, DefaultHeartbeat),
	}
	return e, e.resolve(c.URL)
}

// Validate reports every mistake of c, each as a *FieldError.
func (c PublisherConfig) Validate() error {
	_, errs := c.server()
	errs = append(errs, backoffMistakes(c.Backoff)...)
	errs = append(errs, nameMistake("Exchange", c.Exchange)...)
	errs = append(errs, nameMistake("RoutingKey", c.RoutingKey)...)
	errs = append(errs, durationMistake("ConfirmTimeout", c.ConfirmTimeout, false)...)
	if c.MaxBytes < 0 {
		errs = append(errs, mistake("MaxBytes", "%d is negative", c.MaxBytes))
	}
	for i, q := range c.Queues {
		field := fmt.Sprintf("Queues[%d]", i)
		if q.Name == "" {
			errs = append(errs, mistake(field+".Name", "is required"))
		}
		errs = append(errs, nameMistake(field+".Name", q.Name)...)
		errs = append(errs, q.mistakes(field, q.Name)...)
	}
	for i, b := range c.Bindings {
		if b.Queue == "" {
			errs = append(errs, mistake(fmt.Sprintf("Bindings[%d].Queue", i), "is required"))
		}
	}
	errs = append(errs, topologyMistakes(c.Exchanges, c.Bindings)...)
	return errors.Join(errs...)
}

// Publisher publishes with confirms, on a connection of its own: a broker that
// runs out of memory or disk stops reading from connections that publish, and
// acknowledgements must not wait behind that. It is safe for concurrent use.
//
// It connects at the first use and keeps itself connected, until Close.
type Publisher struct {
	cfg     PublisherConfig
	server  endpoint
	invalid error
	largest atomic.Int64   // the broker's own limit for a body, once it is known on this connection; 0 until then
	running sync.WaitGroup // the supervisor: started at the first use, waited for by Close
	calls   sync.WaitGroup // Publish and Send, added to under mu

	mu      sync.Mutex // protects following fields
	outlet  *outlet    // nil while there is no connection
	err     error      // why there is none
	stop    context.CancelFunc
	closed  bool
	changed chan struct{} // closed, and replaced, when outlet changes
}

var (
	_ broadway.Publisher = (*Publisher)(nil)
	_ broadway.Addressed = (*Publisher)(nil)
)

// NewPublisher makes a Publisher. It dials nothing; mistakes in cfg are returned
// by Validate, and by everything else.
func NewPublisher(cfg PublisherConfig) *Publisher {
	p := &Publisher{invalid: cfg.Validate(), changed: make(chan struct{})}
	if p.invalid == nil {
		p.server, _ = cfg.server()
	}
	cfg.Backoff = backoffDefaults(cfg.Backoff)
	cfg.ConfirmTimeout = or(cfg.ConfirmTimeout, DefaultConfirmTimeout)
	cfg.MaxBytes = or(cfg.MaxBytes, DefaultMaxBytes)
	cfg.Logger = or(cfg.Logger, slog.Default())
	p.cfg = cfg
	return p
}

// Validate reports every mistake of the config, each as a *FieldError.
func (p *Publisher) Validate() error { return p.invalid }

// HasDestination says that a record without a Destination goes to the config's Exchange or
// RoutingKey. The default exchange has no queue without a name.
func (p *Publisher) HasDestination() bool { return p.cfg.Exchange != "" || p.cfg.RoutingKey != "" }

// Publish publishes records, and returns once the broker has confirmed them all.
// Otherwise a *broadway.PublishError names those that it has not, and why:
// ErrUnroutable, ErrNacked, or ErrUnconfirmed with a further reason.
func (p *Publisher) Publish(ctx context.Context, records ...broadway.Record) error {
	messages := make([]Publishing, len(records))
	for i := range records {
		messages[i] = publishing(&records[i])
	}
	return p.Send(ctx, messages...)
}

// Send is Publish for messages with the properties of AMQP.
func (p *Publisher) Send(ctx context.Context, messages ...Publishing) error {
	if len(messages) == 0 {
		return p.invalid
	}
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.calls.Done()
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.ConfirmTimeout,
		fmt.Errorf("%w within %v", ErrUnconfirmed, p.cfg.ConfirmTimeout))
	defer cancel()
	j, left := p.job(ctx, messages)
	if left == 0 {
		return j.result()
	}
	if err := p.put(ctx, j); err != nil {
		return err
	}
	p.isolate(ctx, j)
	return j.result()
}

// put publishes j over the first connection that it gets.
func (p *Publisher) put(ctx context.Context, j *job) error {
	var out *outlet
	for sent := false; !sent; sent = out.publish(ctx, j) {
		var err error
		if out, err = p.connection(ctx, out); err != nil {
			return err
		}
	}
	return nil
}

// enter counts a call, unless the Publisher is closed, and makes sure that the
// supervisor runs.
func (p *Publisher) enter(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.invalid != nil:
		return p.invalid
	case p.closed:
		return ErrClosed
	case p.stop == nil:
		// The supervisor outlives this call, so it outlives ctx, too.
		work, stop := context.WithCancel(context.WithoutCancel(ctx))
		p.stop = stop
		p.running.Go(func() { p.supervise(work) })
	}
	p.calls.Add(1)
	return nil
}

// connection waits for one other than lost.
func (p *Publisher) connection(ctx context.Context, lost *outlet) (*outlet, error) {
	for {
		p.mu.Lock()
		out, err, changed := p.outlet, p.err, p.changed
		p.mu.Unlock()
		if out != nil && out != lost {
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err != nil {
				return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
			return nil, context.Cause(ctx)
		}
	}
}

// Health is nil while the Publisher can publish; otherwise it says why not.
func (p *Publisher) Health() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.invalid != nil:
		return p.invalid
	case p.closed:
		return ErrClosed
	case p.outlet != nil:
		return p.outlet.health()
	}
	return p.err
}

// Close waits for calls that run, each of which has a time limit, and closes the
// connection. Nothing depends on how that goes: it is logged, and Close returns
// nil.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	stop := p.stop
	p.mu.Unlock()
	p.calls.Wait()
	if stop != nil {
		stop()
	}
	p.running.Wait()
	return nil
}

// supervise keeps the Publisher connected, one connection after the other.
func (p *Publisher) supervise(ctx context.Context) {
	p.server.warn(p.cfg.Logger)
	said := "" // of the last message that was refused
	for attempt := 0; sleep(ctx, p.cfg.Backoff, attempt, nil); attempt++ {
		out, err := p.open(ctx)
		for out != nil {
			p.use(out, nil)
			served := out
			out, err = served.serve(ctx)
			if served.useful.Load() {
				attempt = -1
			}
			if out != nil && err.Error() != said { // the same message may be tried for days
				said = err.Error()
				p.cfg.Logger.Warn("rabbitmq: a message was refused", "broker", p.server.String(), "error", err)
			}
		}
		p.use(nil, err)
		if err != nil {
			p.cfg.Logger.Warn("rabbitmq: not publishing", "broker", p.server.String(), "error", err)
		}
	}
}

// use makes out the connection that is used; nil is none, because of err.
func (p *Publisher) use(out *outlet, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outlet, p.err = out, err
	close(p.changed)
	p.changed = make(chan struct{})
}

// open makes one attempt to connect.
func (p *Publisher) open(ctx context.Context) (*outlet, error) {
	out, err := connect(ctx, &p.server, func(l *link) (*outlet, error) {
		t := topology{exchanges: p.cfg.Exchanges, queues: p.cfg.Queues, bindings: p.cfg.Bindings}
		if _, err := t.declare(l.conn); err != nil {
			return nil, err
		}
		return newOutlet(p, l)
	})
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: %w", err)
	}
	p.largest.Store(0)
	return out, nil
}
