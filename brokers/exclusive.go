package brokers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Owner starts brokers that belong to one test alone, see [Exclusive].
type Owner struct {
	t testing.TB
}

// Exclusive is for tests that stop, kill or cut their broker: each broker of the owner is started for t, natively whatever the
// environment says, is reached through a proxy in this process, and ends with t. It costs a start, about five seconds.
//
//	kafka := brokers.Exclusive(t).Kafka()
//	topic := kafka.Topic(t, 1)
//	kafka.Kill(t)
//	kafka.Start(t)
func Exclusive(t testing.TB) Owner {
	t.Helper()
	skipShort(t)
	return Owner{t}
}

// OwnKafka is a Kafka that its test may restart, kill, or cut.
type OwnKafka struct {
	*KafkaBroker
	*Control
}

// OwnRabbitMQ is a RabbitMQ that its test may restart, kill, or cut.
type OwnRabbitMQ struct {
	*RabbitMQBroker
	*Control
}

// Kafka starts a Kafka with additional settings of server.properties ("message.max.bytes=2000000"). Addr is the proxy's, which is
// also what the broker tells its clients; SASL and TLS lead past the proxy.
func (o Owner) Kafka(settings ...string) OwnKafka {
	o.t.Helper()
	return ownKafka(o.t, settings)
}

// RabbitMQ starts a RabbitMQ with additional lines of rabbitmq.conf ("consumer_timeout = 10000"). URL leads through the proxy, TLS past it.
func (o Owner) RabbitMQ(lines ...string) OwnRabbitMQ {
	o.t.Helper()
	return ownRabbitMQ(o.t, lines)
}

// KafkaBehind is Kafka for a test with a proxy of its own: proxy, host:port, is what the broker tells its clients, so that none
// leaves it for the broker's real address, and it must lead to [OwnKafka.Listener]. Addr is the broker itself, past both proxies.
func (o Owner) KafkaBehind(proxy string, settings ...string) OwnKafka {
	o.t.Helper()
	return ownKafkaBehind(o.t, proxy, settings)
}

// Listener is where the proxy of [Owner.KafkaBehind] must lead: it is still cut by [Control.Cut].
func (k OwnKafka) Listener() string { return k.link.addr() }

// LogDir is where the broker keeps the log of a partition: for tests that damage it while the broker is stopped.
func (k OwnKafka) LogDir(topic string, partition int) string {
	return filepath.Join(k.in.dir, "data", fmt.Sprintf("%s-%d", topic, partition))
}

// PID is the process of a broker that runs.
func (c *Control) PID(t testing.TB) int {
	t.Helper()
	pid, err := c.in.pid()
	if err != nil {
		t.Fatalf("brokers: %s: %v", c.launcher.kind(), err)
	}
	return pid
}

// Control is the switch of an exclusive broker. Its methods return when what they say is so, and fail the test otherwise. They
// are not for concurrent use. Address, data and logs survive all of them.
type Control struct {
	in       *instance
	launcher launcher
	link     *proxy
}

// Stop shuts the broker down in good order.
func (c *Control) Stop(t testing.TB) {
	t.Helper()
	c.end(t, syscall.SIGTERM)
}

// Kill ends the broker's process at once (SIGKILL). RabbitMQ is made to write its directory of quorum queues first: it does so
// every few minutes only, and a queue that was declared since then has no leader ever again.
func (c *Control) Kill(t testing.TB) {
	t.Helper()
	if l, ok := c.launcher.(interface {
		flush(context.Context, string, state) error
	}); ok {
		ctx, cancel := context.WithTimeout(context.Background(), callLimit)
		defer cancel()
		if err := l.flush(ctx, c.in.dir, c.in.state); err != nil {
			t.Fatalf("brokers: before killing %s: %v", c.launcher.kind(), err)
		}
	}
	c.end(t, syscall.SIGKILL)
}

func (c *Control) end(t testing.TB, signal os.Signal) {
	t.Helper()
	if c.in.hold == nil {
		t.Fatalf("brokers: %s does not run", c.launcher.kind())
	}
	if err := c.in.end(signal); err != nil {
		t.Fatalf("brokers: end %s: %v", c.launcher.kind(), err)
	}
}

// Start starts a broker that was stopped or killed and returns when it works again.
func (c *Control) Start(t testing.TB) {
	t.Helper()
	if c.in.hold != nil {
		t.Fatalf("brokers: %s runs already", c.launcher.kind())
	}
	ctx, cancel := startContext(t)
	defer cancel()
	if err := c.start(ctx); err != nil {
		t.Fatalf("brokers: %v", err)
	}
}

func (c *Control) start(ctx context.Context) error {
	if err := c.in.run(c.launcher, 0); err != nil {
		return err
	}
	return awaitReady(ctx, c.launcher, c.in.dir, c.in.state)
}

// Restart is [Control.Stop] and [Control.Start].
func (c *Control) Restart(t testing.TB) {
	t.Helper()
	c.Stop(t)
	c.Start(t)
}

// Cut breaks the network: every connection through the proxy is reset, and so is every new one until [Control.Heal]. The broker
// itself goes on.
func (c *Control) Cut() { c.link.setCut(true) }

// Heal lets connections through again.
func (c *Control) Heal() { c.link.setCut(false) }
