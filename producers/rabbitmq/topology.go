package rabbitmq

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The types of queues for QueueDeclare.Type.
const (
	// Classic is one node's queue.
	Classic = "classic"
	// Quorum is a replicated queue, which counts failed deliveries.
	Quorum = "quorum"
)

// QueueDeclare says how a queue is declared. Declaring a queue that exists with
// other properties is an error at the broker, which names what differs.
type QueueDeclare struct {
	// Name is for publishers, which may declare several. A Config names the
	// queue itself.
	Name string
	// Durable queues survive a restart of the broker. Quorum queues must be.
	Durable bool
	// AutoDelete queues go with their last consumer.
	AutoDelete bool
	// Exclusive queues belong to one connection, and go with it.
	Exclusive bool
	// Passive only checks that the queue exists. The broker does not compare
	// the other fields with it.
	Passive bool
	// Type is Classic or Quorum (x-queue-type). Default: the virtual host's,
	// usually Classic.
	Type string
	// SingleActiveConsumer lets one consumer at a time have the messages, in
	// order (x-single-active-consumer). The producer must know it to hand over
	// in order: set it together with Passive for a queue that is declared
	// elsewhere.
	SingleActiveConsumer bool
	// DeadLetterExchange and DeadLetterRoutingKey are where the broker puts
	// what is rejected (x-dead-letter-exchange, x-dead-letter-routing-key). With
	// a routing key alone it is the default exchange: the key names a queue.
	DeadLetterExchange   string
	DeadLetterRoutingKey string
	// Arguments are any others.
	Arguments Table
}

// ExchangeDeclare says how an exchange is declared.
type ExchangeDeclare struct {
	// Name is required.
	Name string
	// Kind is "direct", "fanout", "topic", "headers" or a plugin's. Required
	// unless Passive.
	Kind string
	// Durable exchanges survive a restart of the broker.
	Durable bool
	// AutoDelete exchanges go with their last binding.
	AutoDelete bool
	// Internal exchanges take messages from other exchanges only.
	Internal bool
	// Passive only checks that the exchange exists.
	Passive bool
	// Arguments are any others.
	Arguments Table
}

// Binding routes messages from an exchange to a queue.
type Binding struct {
	// Queue is for publishers. A Config binds its own queue.
	Queue string
	// Exchange is required.
	Exchange   string
	RoutingKey string
	// Arguments are what a "headers" exchange matches.
	Arguments Table
}

// topology is what a session sets up, in this order.
type topology struct {
	exchanges []ExchangeDeclare
	queues    []QueueDeclare
	bindings  []Binding
}

// declare sets up t on a channel of its own: a mistake closes that channel, and
// no other. It returns the name of each queue, which the broker may have chosen.
func (t topology) declare(conn *amqp.Connection) ([]string, error) {
	if len(t.exchanges)+len(t.queues)+len(t.bindings) == 0 {
		return nil, nil
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", plain(err))
	}
	for _, e := range t.exchanges {
		if err := e.declare(ch); err != nil {
			return nil, fmt.Errorf("declare exchange %q: %w", e.Name, plain(err))
		}
	}
	names := make([]string, len(t.queues))
	for i, q := range t.queues {
		if names[i], err = q.declare(ch); err != nil {
			return nil, fmt.Errorf("declare queue %q: %w", q.Name, plain(err))
		}
	}
	for _, b := range t.bindings {
		if b.Queue == "" && len(names) > 0 {
			b.Queue = names[0]
		}
		if err := b.bind(ch); err != nil {
			return nil, fmt.Errorf("bind queue %q to exchange %q: %w", b.Queue, b.Exchange, plain(err))
		}
	}
	return names, plain(ch.Close())
}

func (e ExchangeDeclare) declare(ch *amqp.Channel) error {
	arguments, err := toWire(e.Arguments)
	if err != nil {
		return err
	}
	if e.Passive {
		return ch.ExchangeDeclarePassive(e.Name, e.Kind, e.Durable, e.AutoDelete, e.Internal, false, arguments)
	}
	return ch.ExchangeDeclare(e.Name, e.Kind, e.Durable, e.AutoDelete, e.Internal, false, arguments)
}

func (q QueueDeclare) declare(ch *amqp.Channel) (string, error) {
	arguments, err := toWire(q.arguments())
	if err != nil {
		return "", err
	}
	do := ch.QueueDeclare
	if q.Passive {
		do = ch.QueueDeclarePassive
	}
	queue, err := do(q.Name, q.Durable, q.AutoDelete, q.Exclusive, false, arguments)
	return queue.Name, err
}

func (b Binding) bind(ch *amqp.Channel) error {
	arguments, err := toWire(b.Arguments)
	if err != nil {
		return err
	}
	return ch.QueueBind(b.Queue, b.RoutingKey, b.Exchange, false, arguments)
}

// arguments are those of q together with the fields that stand for one.
func (q QueueDeclare) arguments() Table {
	t := make(Table, len(q.Arguments)+4)
	for key, value := range q.Arguments {
		t[key] = value
	}
	if q.Type != "" {
		t["x-queue-type"] = q.Type
	}
	if q.SingleActiveConsumer {
		t["x-single-active-consumer"] = true
	}
	if q.DeadLetterExchange != "" || q.DeadLetterRoutingKey != "" {
		t["x-dead-letter-exchange"] = q.DeadLetterExchange
	}
	if q.DeadLetterRoutingKey != "" {
		t["x-dead-letter-routing-key"] = q.DeadLetterRoutingKey
	}
	return t
}

// singleActive says whether the queue has a single active consumer.
func (q *QueueDeclare) singleActive() bool {
	if q == nil {
		return false
	}
	argument, _ := q.Arguments["x-single-active-consumer"].(bool)
	return q.SingleActiveConsumer || argument
}

// kind is the type of the queue, "" when it is not known here.
func (q *QueueDeclare) kind() string {
	if argument, ok := q.Arguments["x-queue-type"].(string); ok {
		return argument
	}
	return q.Type
}

// mistakes finds what is wrong with q as the declaration of queue.
func (q *QueueDeclare) mistakes(field, queue string) []error {
	var errs []error
	add := func(name, format string, args ...any) {
		errs = append(errs, mistake(field+"."+name, format, args...))
	}
	if q.Name != "" && q.Name != queue {
		add("Name", "%q is not the queue, %q", q.Name, queue)
	}
	switch q.kind() {
	case "", Classic:
	case Quorum:
		if !q.Durable && !q.Passive {
			add("Durable", "must be set: quorum queues are durable")
		}
		if q.Exclusive || q.AutoDelete {
			add("Type", "quorum queues are neither Exclusive nor AutoDelete")
		}
		if queue == "" {
			add("Type", "quorum queues need a name")
		}
	default:
		add("Type", "%q is neither %q nor %q", q.kind(), Classic, Quorum)
	}
	if queue == "" && q.Passive {
		add("Passive", "needs a queue to look for")
	}
	errs = append(errs, q.clashes(field)...)
	return append(errs, tableMistakes(field+".Arguments", q.Arguments)...)
}

// clashes finds arguments that fields of q set too.
func (q *QueueDeclare) clashes(field string) []error {
	fields := *q
	fields.Arguments = nil
	var errs []error
	for _, argument := range slices.Sorted(maps.Keys(fields.arguments())) {
		errs = append(errs, clash(field, q.Arguments, argument, queueFields(argument))...)
	}
	return errs
}

// queueFields is the field of a QueueDeclare that stands for argument.
func queueFields(argument string) string {
	switch argument {
	case "x-queue-type":
		return "Type"
	case "x-single-active-consumer":
		return "SingleActiveConsumer"
	case "x-dead-letter-exchange":
		return "DeadLetterExchange"
	default:
		return "DeadLetterRoutingKey"
	}
}

func topologyMistakes(exchanges []ExchangeDeclare, bindings []Binding) []error {
	var errs []error
	for i, e := range exchanges {
		field := fmt.Sprintf("Exchanges[%d]", i)
		if e.Name == "" {
			errs = append(errs, mistake(field+".Name", "is required"))
		}
		if strings.TrimSpace(e.Kind) == "" && !e.Passive {
			errs = append(errs, mistake(field+".Kind", "is required"))
		}
		errs = append(errs, nameMistake(field+".Name", e.Name)...)
		errs = append(errs, nameMistake(field+".Kind", e.Kind)...)
		errs = append(errs, tableMistakes(field+".Arguments", e.Arguments)...)
	}
	for i, b := range bindings {
		field := fmt.Sprintf("Bindings[%d]", i)
		if b.Exchange == "" {
			errs = append(errs, mistake(field+".Exchange", "is required (the default exchange needs no binding)"))
		}
		errs = append(errs, nameMistake(field+".Exchange", b.Exchange)...)
		errs = append(errs, nameMistake(field+".RoutingKey", b.RoutingKey)...)
		errs = append(errs, tableMistakes(field+".Arguments", b.Arguments)...)
	}
	return errs
}
