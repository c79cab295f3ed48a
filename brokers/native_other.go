//go:build !unix

package brokers

import (
	"errors"
	"testing"
	"time"
)

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

func ownKafka(t testing.TB, _ []string) OwnKafka {
	t.Helper()
	t.Fatal("brokers: an exclusive broker is started natively, which needs a Unix; run the tests with -short")
	return OwnKafka{}
}

func ownKafkaBehind(t testing.TB, _ string, settings []string) OwnKafka { return ownKafka(t, settings) }

func ownRabbitMQ(t testing.TB, _ []string) OwnRabbitMQ {
	t.Helper()
	t.Fatal("brokers: an exclusive broker is started natively, which needs a Unix; run the tests with -short")
	return OwnRabbitMQ{}
}

// run is never reached: without a native start there is no instance.
func (in *instance) run(launcher, time.Duration) error { return errors.ErrUnsupported }

// claimPort is never reached either.
func claimPort(int) (bool, error) { return false, errors.ErrUnsupported }
