package brokers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitMQBroker is a RabbitMQ that a test may use. Its methods fail the test that they are given when the broker does not answer.
type RabbitMQBroker struct {
	url    string
	origin string
	// What only a native broker has.
	dir      string
	state    state
	vhost    string
	launcher rabbitLauncher
}

// RabbitMQ returns a RabbitMQ for t and logs which one it is. A native one is shared with other tests, but the virtual host is
// t's own and goes with it. See the package's documentation for where the broker comes from.
func RabbitMQ(t testing.TB) *RabbitMQBroker {
	t.Helper()
	skipShort(t)
	broker := findRabbitMQ(t)
	t.Logf("rabbitmq: %s", broker)
	return broker
}

// URL is where to connect, with user and password.
func (b *RabbitMQBroker) URL() string { return b.url }

// String says where the broker comes from and where it listens, without the password.
func (b *RabbitMQBroker) String() string {
	parsed, err := url.Parse(b.url)
	if err != nil {
		return b.origin + " at an address that is no URL" // the error would quote the password
	}
	return b.origin + " at " + parsed.Redacted()
}

// TLS returns the amqps:// URL of an encrypted listener, with user, password and virtual host, and the configuration that trusts
// its certificate. Only a native broker has it: t fails on any other.
func (b *RabbitMQBroker) TLS(t testing.TB) (string, *tls.Config) {
	t.Helper()
	b.needNative(t, "TLS listener")
	config, err := trust(b.dir)
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return "amqps" + b.state.amqpURL(b.state.addr("amqps"), b.vhost)[len("amqp"):], config
}

func (b *RabbitMQBroker) needNative(t testing.TB, what string) {
	t.Helper()
	if b.dir == "" {
		t.Fatalf("brokers: %s gives the harness no %s: unset BROADWAY_RABBITMQ and BROADWAY_BROKERS for a native one", b.origin, what)
	}
}

// ownVhost makes a virtual host for t, reached through addr, and removes it, with all that is in it, when t ends.
func (b *RabbitMQBroker) ownVhost(t testing.TB, addr string) {
	t.Helper()
	b.vhost = freshName(t.Name())
	b.url = b.state.amqpURL(addr, b.vhost)
	b.evaluate(t, fmt.Sprintf(`rabbit_vhost:add(<<"%s">>, <<"broadway">>), `+
		`rabbit_auth_backend_internal:set_permissions(<<"%s">>, <<"%s">>, <<".*">>, <<".*">>, <<".*">>, <<"broadway">>)`,
		b.vhost, b.state.User, b.vhost))
	if b.state.Key == exclusiveKey {
		return // it goes with the broker
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), callLimit)
		defer cancel()
		gone := fmt.Sprintf(`rabbit_vhost:delete(<<"%s">>, <<"broadway">>)`, b.vhost)
		if _, err := b.launcher.evaluate(ctx, b.dir, b.state, gone); err != nil {
			t.Logf("brokers: virtual host %s stays: %v", b.vhost, err)
		}
	})
}

// Evaluate runs an Erlang expression in the node and returns what it gives, as Erlang prints it: memory alarms, permissions and
// settings of the running node are changed so. Only a native broker can be asked: t fails on any other.
func (b *RabbitMQBroker) Evaluate(t testing.TB, expression string) string {
	t.Helper()
	b.needNative(t, "Erlang shell")
	return b.evaluate(t, expression)
}

// VHost is the virtual host of URL, and User its user. Both are empty unless the broker is native.
func (b *RabbitMQBroker) VHost() (vhost, user string) { return b.vhost, b.state.User }

// evaluate runs an Erlang expression in the node.
func (b *RabbitMQBroker) evaluate(t testing.TB, expression string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	result, err := b.launcher.evaluate(ctx, b.dir, b.state, expression)
	if err != nil {
		t.Fatalf("brokers: %v", err)
	}
	return result
}

// channel runs do with a connection and channel that live no longer than that.
func (b *RabbitMQBroker) channel(do func(*amqp.Channel) error) error {
	conn, err := dialAMQP(b.url)
	if err != nil {
		return err
	}
	channel, err := conn.Channel()
	if err == nil {
		err = do(channel)
	}
	if closeErr := conn.Close(); err == nil {
		err = closeErr
	}
	return err
}

// QueueOption changes the queue that [RabbitMQBroker.Queue] declares.
type QueueOption func(*queueOptions)

type queueOptions struct {
	arguments amqp.Table
}

// Quorum makes it a quorum queue instead of a classic one.
func Quorum() QueueOption { return Argument("x-queue-type", "quorum") }

// Argument sets an argument of the queue, "x-single-active-consumer" for example.
func Argument(key string, value any) QueueOption {
	return func(o *queueOptions) { o.arguments[key] = value }
}

// Queue declares a durable queue under a fresh name and deletes it when t ends.
func (b *RabbitMQBroker) Queue(t testing.TB, options ...QueueOption) string {
	t.Helper()
	name := freshName(t.Name())
	o := queueOptions{arguments: amqp.Table{}}
	for _, option := range options {
		option(&o)
	}
	err := b.channel(func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclare(name, true, false, false, false, o.arguments)
		return err
	})
	if err != nil {
		t.Fatalf("brokers: declare queue %s: %v", name, err)
	}
	if b.vhost == "" { // otherwise it goes with the virtual host
		t.Cleanup(func() { b.tryDelete(t, name) })
	}
	return name
}

// tryDelete deletes a queue after its test. The broker may be gone by then, which is no failure.
func (b *RabbitMQBroker) tryDelete(t testing.TB, name string) {
	err := b.channel(func(channel *amqp.Channel) error {
		_, err := channel.QueueDelete(name, false, false, false)
		return err
	})
	if err != nil {
		t.Logf("brokers: queue %s stays: %v", name, err)
	}
}

// Publish writes persistent messages to a queue and returns when the broker has confirmed each.
func (b *RabbitMQBroker) Publish(t testing.TB, queue string, payloads ...[]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*callLimit)
	defer cancel()
	err := b.channel(func(channel *amqp.Channel) error { return publishConfirmed(ctx, channel, queue, payloads) })
	if err != nil {
		t.Fatalf("brokers: publish to %s: %v", queue, err)
	}
}

func publishConfirmed(ctx context.Context, channel *amqp.Channel, queue string, payloads [][]byte) error {
	if err := channel.Confirm(false); err != nil {
		return err
	}
	returned := channel.NotifyReturn(make(chan amqp.Return, len(payloads)+1))
	confirms := make([]*amqp.DeferredConfirmation, 0, len(payloads))
	for _, payload := range payloads {
		message := amqp.Publishing{Body: payload, DeliveryMode: amqp.Persistent}
		confirm, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, message)
		if err != nil {
			return err
		}
		confirms = append(confirms, confirm)
	}
	for _, confirm := range confirms {
		if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
			return errors.Join(err, errors.New("not confirmed"))
		}
	}
	select {
	case message := <-returned:
		return fmt.Errorf("returned: %s", message.ReplyText)
	default:
		return nil
	}
}

// Ready returns how many messages of a queue wait for a consumer.
func (b *RabbitMQBroker) Ready(t testing.TB, queue string) int {
	t.Helper()
	var ready int
	err := b.channel(func(channel *amqp.Channel) error {
		found, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		ready = found.Messages
		return err
	})
	if err != nil {
		t.Fatalf("brokers: look at queue %s: %v", queue, err)
	}
	return ready
}

// Depth returns how many messages of a queue wait for a consumer, and how many are with one and not acknowledged yet. Only a
// native broker tells the second: t fails on any other.
func (b *RabbitMQBroker) Depth(t testing.TB, queue string) (ready, unacked int) {
	t.Helper()
	b.needNative(t, "count of unacknowledged messages")
	text := b.evaluate(t, fmt.Sprintf(depthExpression, b.vhost, queue))
	if _, err := fmt.Sscanf(text, "{%d,%d}", &ready, &unacked); err != nil {
		t.Fatalf("brokers: queue %s: %q: %v", queue, text, err)
	}
	return ready, unacked
}

// depthExpression asks a queue for its two counts. What a quorum queue publishes of itself is seconds old, so the state of its
// leader is asked instead.
const depthExpression = `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"%s">>)),
case amqqueue:get_type(Q) of
  rabbit_quorum_queue ->
    Count = fun(S) -> {rabbit_fifo:query_messages_ready(S), rabbit_fifo:query_messages_checked_out(S)} end,
    {ok, {_, Counts}, _} = ra:leader_query(amqqueue:get_pid(Q), Count),
    Counts;
  _ ->
    [{_, R}, {_, U}] = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]),
    {R, U}
end`

// CloseConnections makes the broker close every connection to this virtual host, as an operator would (320 CONNECTION_FORCED),
// and returns how many there were. Only a native broker can be asked: t fails on any other.
func (b *RabbitMQBroker) CloseConnections(t testing.TB) int {
	t.Helper()
	b.needNative(t, "way to close connections")
	text := b.evaluate(t, fmt.Sprintf(`length([ok || P <- rabbit_networking:connections(), `+
		`catch proplists:get_value(vhost, rabbit_networking:connection_info(P, [vhost])) =:= <<"%s">>, `+
		`(catch rabbit_networking:close_connection(P, "closed by the test")) =:= ok])`, b.vhost))
	var closed int
	if _, err := fmt.Sscanf(text, "%d", &closed); err != nil {
		t.Fatalf("brokers: close connections: %q: %v", text, err)
	}
	return closed
}
