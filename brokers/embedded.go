package brokers

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Embedded returns a stand-in for Kafka that runs in this process: three brokers on free loopback ports, gone when t ends. It needs
// nothing installed and so runs under -short as well. It is for tests that must run everywhere; what they show still wants a real
// Kafka.
func Embedded(t testing.TB) *KafkaBroker {
	t.Helper()
	broker := newEmbedded(t)
	t.Logf("kafka: %s", broker)
	return broker
}

func newEmbedded(t testing.TB) *KafkaBroker {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatalf("brokers: the embedded Kafka does not start: %v", err)
	}
	t.Cleanup(cluster.Close)
	return &KafkaBroker{addrs: cluster.ListenAddrs(), origin: "embedded (kfake)"}
}
