// Package rabbitmq lets pipeline files have sources and publishers of the kind
// "rabbitmq":
//
//	registry := pipelines.NewRegistry()
//	rabbitmq.Register(registry)
//
// A source, with the defaults of producers/rabbitmq where keys are left out:
//
//	producers:
//	  - rabbitmq:
//	      host: localhost
//	      port: 5672                     # 5671 with tls
//	      vhost: /
//	      username: guest
//	      password_file: password        # or password_env; see pipelines.Secret
//	      external: false                # log in by the client's certificate
//	      url_env: RABBITMQ_URL          # or url_file: in place of all of these
//	      tls: {ca_file: ca.pem}         # see pipelines.TLS
//	      connection_name: broadway orders
//	      dial_timeout: 15s
//	      close_timeout: 5s
//	      heartbeat: 5s
//	      backoff: {initial: 1s, max: 30s, factor: 2, jitter: 0.2}
//	      queue: orders                  # required, except with declare
//	      declare:                       # nothing is declared without it
//	        durable: true
//	        auto_delete: false
//	        exclusive: false
//	        passive: false
//	        type: quorum                 # or classic; the virtual host's
//	        single_active_consumer: true # false
//	        dead_letter_exchange: dead
//	        dead_letter_routing_key: orders
//	        arguments: {x-max-length: 100000}
//	      exchanges:
//	        - {name: events, kind: topic, durable: true}
//	      bindings:
//	        - {exchange: events, routing_key: "orders.#"}
//	      consumer: {tag: billing, exclusive: false, priority: 0, arguments: {}}
//	      prefetch: 100                  # this source's part of max_unsettled
//	      ack_timeout: 30m               # or never
//	      lag_interval: 5s               # or never
//
// A publisher, which dead letters go to, has the same keys for its connection:
//
//	failure:
//	  action: dead_letter
//	  dead_letter:
//	    rabbitmq:
//	      exchange: ""                   # where routing_key names a queue
//	      routing_key: orders.dead
//	      exchanges: […]                 # declared, as above
//	      queues: [{name: orders.dead, durable: true}]
//	      bindings: [{queue: orders.dead, exchange: dead, routing_key: orders}]
//	      allow_unroutable: false
//	      confirm_timeout: 30s
//	      max_bytes: 128MiB
package rabbitmq

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
	"github.com/gobroadway/gobroadway/producers/rabbitmq"
)

// Register makes the kind "rabbitmq" known to r, for sources and publishers.
func Register(r *pipelines.Registry) {
	r.Source("rabbitmq", source)
	r.Publisher("rabbitmq", publisher)
}

// connection is what sources and publishers share.
type connection struct {
	URL      pipelines.Secret `yaml:"url"`
	Host     string           `yaml:"host"`
	Port     int              `yaml:"port" max:"65535"`
	VHost    string           `yaml:"vhost"`
	Username string           `yaml:"username"`
	Password pipelines.Secret `yaml:"password"`
	External bool             `yaml:"external"`
	TLS      *pipelines.TLS   `yaml:"tls"`

	ConnectionName string            `yaml:"connection_name"`
	DialTimeout    time.Duration     `yaml:"dial_timeout"`
	CloseTimeout   time.Duration     `yaml:"close_timeout"`
	Heartbeat      time.Duration     `yaml:"heartbeat"`
	Backoff        pipelines.Backoff `yaml:"backoff"`

	Exchanges []exchangeSpec `yaml:"exchanges"`
	Bindings  []bindingSpec  `yaml:"bindings"`
}

type exchangeSpec struct {
	Name       string         `yaml:"name"`
	Kind       string         `yaml:"kind"`
	Durable    bool           `yaml:"durable"`
	AutoDelete bool           `yaml:"auto_delete"`
	Internal   bool           `yaml:"internal"`
	Passive    bool           `yaml:"passive"`
	Arguments  map[string]any `yaml:"arguments"`
}

type bindingSpec struct {
	Queue      string         `yaml:"queue"`
	Exchange   string         `yaml:"exchange"`
	RoutingKey string         `yaml:"routing_key"`
	Arguments  map[string]any `yaml:"arguments"`
}

type queueSpec struct {
	Name                 string         `yaml:"name"`
	Durable              bool           `yaml:"durable"`
	AutoDelete           bool           `yaml:"auto_delete"`
	Exclusive            bool           `yaml:"exclusive"`
	Passive              bool           `yaml:"passive"`
	Type                 string         `yaml:"type"`
	SingleActiveConsumer bool           `yaml:"single_active_consumer"`
	DeadLetterExchange   string         `yaml:"dead_letter_exchange"`
	DeadLetterRoutingKey string         `yaml:"dead_letter_routing_key"`
	Arguments            map[string]any `yaml:"arguments"`
}

type consumerSpec struct {
	Tag       string         `yaml:"tag"`
	Exclusive bool           `yaml:"exclusive"`
	Priority  int            `yaml:"priority" allow:"negative"`
	Arguments map[string]any `yaml:"arguments"`
}

func source(s *pipelines.Section) (broadway.Producer, error) {
	cfg, err := sourceConfig(s)
	if err != nil {
		return nil, err
	}
	return rabbitmq.NewProducer(cfg), nil
}

func sourceConfig(s *pipelines.Section) (rabbitmq.Config, error) {
	var spec struct {
		connection  `yaml:",inline"`
		Queue       string             `yaml:"queue"`
		Declare     *queueSpec         `yaml:"declare"`
		Consumer    consumerSpec       `yaml:"consumer"`
		Prefetch    int                `yaml:"prefetch" max:"65535"`
		AckTimeout  pipelines.Interval `yaml:"ack_timeout"`
		LagInterval pipelines.Interval `yaml:"lag_interval"`
	}
	if err := s.Decode(&spec); err != nil {
		return rabbitmq.Config{}, err
	}
	spec.check(s)
	cfg := rabbitmq.Config{
		URL: spec.url(s), Host: spec.Host, Port: spec.Port, VHost: spec.VHost,
		Credentials: spec.credentials(), TLS: spec.tls(s), ConnectionName: spec.ConnectionName,
		DialTimeout: spec.DialTimeout, CloseTimeout: spec.CloseTimeout, Heartbeat: spec.Heartbeat,
		Backoff: spec.Backoff.Backoff(),
		Queue:   spec.Queue, Exchanges: exchanges(spec.Exchanges), Bindings: bindings(spec.Bindings),
		Consumer: rabbitmq.Consumer{
			Tag: spec.Consumer.Tag, Exclusive: spec.Consumer.Exclusive, Priority: spec.Consumer.Priority,
			Arguments: spec.Consumer.Arguments,
		},
		Prefetch: spec.Prefetch, AckTimeout: time.Duration(spec.AckTimeout), LagInterval: time.Duration(spec.LagInterval),
		Logger: s.Logger(),
	}
	if spec.Declare != nil {
		if spec.Declare.Name != "" {
			_ = s.Fail("declare.name", "the name of the queue is the key queue")
		}
		declare := spec.Declare.declare()
		cfg.Declare = &declare
	}
	return cfg, nil
}

func publisher(s *pipelines.Section) (broadway.Publisher, error) {
	cfg, err := publisherConfig(s)
	if err != nil {
		return nil, err
	}
	return rabbitmq.NewPublisher(cfg), nil
}

func publisherConfig(s *pipelines.Section) (rabbitmq.PublisherConfig, error) {
	var spec struct {
		connection      `yaml:",inline"`
		Exchange        string         `yaml:"exchange"`
		RoutingKey      string         `yaml:"routing_key"`
		Queues          []queueSpec    `yaml:"queues"`
		AllowUnroutable bool           `yaml:"allow_unroutable"`
		ConfirmTimeout  time.Duration  `yaml:"confirm_timeout"`
		MaxBytes        pipelines.Size `yaml:"max_bytes"`
	}
	if err := s.Decode(&spec); err != nil {
		return rabbitmq.PublisherConfig{}, err
	}
	spec.check(s)
	if spec.Exchange == "" && spec.RoutingKey == "" {
		return rabbitmq.PublisherConfig{}, s.Fail("", "needs an exchange, or a routing_key that names a queue: where dead letters go")
	}
	cfg := rabbitmq.PublisherConfig{
		URL: spec.url(s), Host: spec.Host, Port: spec.Port, VHost: spec.VHost,
		Credentials: spec.credentials(), TLS: spec.tls(s), ConnectionName: spec.ConnectionName,
		DialTimeout: spec.DialTimeout, CloseTimeout: spec.CloseTimeout, Heartbeat: spec.Heartbeat,
		Backoff:  spec.Backoff.Backoff(),
		Exchange: spec.Exchange, RoutingKey: spec.RoutingKey,
		Exchanges: exchanges(spec.Exchanges), Bindings: bindings(spec.Bindings),
		AllowUnroutable: spec.AllowUnroutable, ConfirmTimeout: spec.ConfirmTimeout, MaxBytes: int(spec.MaxBytes),
		Logger: s.Logger(),
	}
	for _, q := range spec.Queues {
		cfg.Queues = append(cfg.Queues, q.declare())
	}
	return cfg, nil
}

// check reports which keys do not go together.
func (c *connection) check(s *pipelines.Section) {
	fields := c.Host != "" || c.Port != 0 || c.VHost != "" || c.Username != "" || c.Password.Set()
	switch {
	case c.URL.Set() && fields:
		_ = s.Fail("url", "stands in place of host, port, vhost, username and password")
		c.URL = pipelines.Secret{}
	case c.External && (c.Username != "" || c.Password.Set()):
		_ = s.Fail("external", "logs in by the client's certificate, without username and password")
	case c.External && c.TLS == nil:
		_ = s.Fail("external", "needs tls with cert_file and key_file")
	case (c.Username != "") != c.Password.Set():
		_ = s.Fail("", "username, and password_file or password_env, need each other")
	case c.Password.Set() && c.TLS == nil && !loopback(c.Host):
		s.Warn("host", "without tls the password is sent unencrypted")
	}
}

// loopback says whether host is this machine, by its usual names.
func loopback(host string) bool {
	switch host {
	case "", "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// url is the URL of a secret, as it is at loading.
func (c *connection) url(s *pipelines.Section) string {
	if !c.URL.Set() {
		return ""
	}
	url, err := c.URL.Read()
	if err != nil {
		_ = s.Fail("url", "%s", err)
	}
	return url
}

// credentials reads the password at each dial, so that a rotated one is used.
// Nil leaves the default, or those of the URL.
func (c *connection) credentials() rabbitmq.CredentialsProvider {
	name, password := c.Username, c.Password
	switch {
	case c.External:
		return func(context.Context) (rabbitmq.Credentials, error) { return rabbitmq.Credentials{External: true}, nil }
	case !password.Set():
		return nil
	}
	return func(context.Context) (rabbitmq.Credentials, error) {
		value, err := password.Read()
		return rabbitmq.Credentials{Username: name, Password: rabbitmq.Secret(value)}, err
	}
}

func (c *connection) tls(s *pipelines.Section) *tls.Config { return c.TLS.Config(s, "tls") }

func (q queueSpec) declare() rabbitmq.QueueDeclare {
	return rabbitmq.QueueDeclare{
		Name: q.Name, Durable: q.Durable, AutoDelete: q.AutoDelete, Exclusive: q.Exclusive, Passive: q.Passive,
		Type: q.Type, SingleActiveConsumer: q.SingleActiveConsumer,
		DeadLetterExchange: q.DeadLetterExchange, DeadLetterRoutingKey: q.DeadLetterRoutingKey,
		Arguments: q.Arguments,
	}
}

func exchanges(specs []exchangeSpec) []rabbitmq.ExchangeDeclare {
	var list []rabbitmq.ExchangeDeclare
	for _, e := range specs {
		list = append(list, rabbitmq.ExchangeDeclare{
			Name: e.Name, Kind: e.Kind, Durable: e.Durable, AutoDelete: e.AutoDelete,
			Internal: e.Internal, Passive: e.Passive, Arguments: e.Arguments,
		})
	}
	return list
}

func bindings(specs []bindingSpec) []rabbitmq.Binding {
	var list []rabbitmq.Binding
	for _, b := range specs {
		list = append(list, rabbitmq.Binding{Queue: b.Queue, Exchange: b.Exchange, RoutingKey: b.RoutingKey, Arguments: b.Arguments})
	}
	return list
}
