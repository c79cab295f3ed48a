package brokers_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/gobroadway/gobroadway/brokers"
)

// Without programs, without addresses: the failure names what to install and what else can be done.
func TestAMissingBrokerSaysWhatToInstall(t *testing.T) {
	for kind, words := range map[string][]string{
		"kafka":    {"FAIL", "JDK", "maven", "BROADWAY_KAFKA", "-short"},
		"rabbitmq": {"FAIL", "rabbitmq-server", "BROADWAY_RABBITMQ", "-short"},
	} {
		text := startChild(t, "BROADWAY_CHILD="+kind, "PATH=/nonexistent", "JAVA_HOME=", "BROADWAY_BROKERS_DIR="+t.TempDir()).release(t)
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%s: the message lacks %q:\n%s", kind, word, text)
			}
		}
	}
}

func TestTheEnvironmentChoosesTheBroker(t *testing.T) {
	for _, c := range []struct{ name, child, env, want string }{
		{"kafka", "kafka", "BROADWAY_KAFKA=kafka.example:29092,other.example:29092", "BROADWAY_KAFKA at kafka.example:29092,other.example:29092"},
		{"rabbitmq", "rabbitmq", "BROADWAY_RABBITMQ=amqp://user:secret@rabbit.example:25673/v", "BROADWAY_RABBITMQ at amqp://user:xxxxx@rabbit.example:25673/v"},
		{"embedded", "kafka", "BROADWAY_BROKERS=embedded", "embedded (kfake) at 127.0.0.1:"},
		{"no embedded rabbitmq", "rabbitmq", "BROADWAY_BROKERS=embedded", "RabbitMQ has no embedded stand-in"},
		{"mistyped", "kafka", "BROADWAY_BROKERS=dokcer", `BROADWAY_BROKERS is "dokcer"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := startChild(t, "BROADWAY_KAFKA=", "BROADWAY_RABBITMQ=", "BROADWAY_CHILD="+c.child, c.env).release(t)
			if !strings.Contains(text, c.want) {
				t.Errorf("want %q in:\n%s", c.want, text)
			}
			if strings.Contains(text, "secret@") && !strings.Contains(text, "address ") {
				t.Errorf("the password is told:\n%s", text)
			}
		})
	}
}

// A daemon that does not answer is said within the probe's limit.
func TestDockerThatDoesNotAnswerIsSaid(t *testing.T) {
	text := startChild(t, "BROADWAY_KAFKA=", "BROADWAY_CHILD=kafka", "BROADWAY_BROKERS=docker", "DOCKER_HOST=tcp://127.0.0.1:1").release(t)
	if !strings.Contains(text, "BROADWAY_BROKERS=docker") || !strings.Contains(text, "FAIL") {
		t.Errorf("got:\n%s", text)
	}
}

// -short skips what needs a real broker, before it looks for one.
func TestShortRunsWithoutBrokers(t *testing.T) {
	for _, kind := range []string{"kafka", "rabbitmq"} {
		text := startChild(t, "BROADWAY_CHILD="+kind, "BROADWAY_CHILD_SHORT=1", "PATH=/nonexistent").release(t)
		if !strings.Contains(text, "--- SKIP: TestChild") {
			t.Errorf("%s: not skipped:\n%s", kind, text)
		}
	}
}

// A failing test prints what the broker logged while it ran.
func TestAFailingTestShowsTheBrokersLog(t *testing.T) {
	needsBroker(t)
	text := startChild(t, "BROADWAY_CHILD=fail").release(t)
	if !regexp.MustCompile(`(?s)the end of what rabbitmq logged meanwhile:.*authenticated and granted access to vhost 'TestChild-`).MatchString(text) {
		t.Errorf("no log in:\n%s", text)
	}
}

// The embedded Kafka is there without anything installed.
func TestEmbeddedKafkaNeedsNothing(t *testing.T) {
	kafka := brokers.Embedded(t)
	topic := kafka.Topic(t, 2)
	kafka.Produce(t, topic, brokers.Record{Partition: 1, Value: []byte("here")})
	if got := kafka.Records(t, topic); len(got) != 1 || string(got[0].Value) != "here" {
		t.Errorf("read %v", got)
	}
}
