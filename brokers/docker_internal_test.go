package brokers

import (
	"os"
	"strings"
	"testing"
)

// The addresses that BROADWAY_BROKERS=docker uses are the ones that docker-compose.yml publishes, on loopback only.
func TestComposePublishesWhatTheHarnessUses(t *testing.T) {
	text, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"` + dockerKafkaAddr + `:29092"`,
		"KAFKA_ADVERTISED_LISTENERS: PLAINTEXT://" + dockerKafkaAddr,
		`"127.0.0.1:25673:5672"`,
		"RABBITMQ_DEFAULT_USER: broadway",
		"RABBITMQ_DEFAULT_PASS: broadway",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("docker-compose.yml lacks %s", want)
		}
	}
	if !strings.HasPrefix(dockerRabbitMQURL, "amqp://broadway:broadway@127.0.0.1:25673/") {
		t.Errorf("the harness uses %s", dockerRabbitMQURL)
	}
}
