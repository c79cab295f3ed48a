//go:build !unix

package brokers

import "testing"

const noNative = "brokers: a native start needs a Unix: set %s, or BROADWAY_BROKERS to docker, or run the tests with -short"

func nativeKafka(t testing.TB) *KafkaBroker {
	t.Helper()
	t.Fatalf(noNative, "BROADWAY_KAFKA=host:port")
	return nil
}

func nativeRabbitMQ(t testing.TB) *RabbitMQBroker {
	t.Helper()
	t.Fatalf(noNative, "BROADWAY_RABBITMQ=amqp://user:password@host:port/")
	return nil
}
