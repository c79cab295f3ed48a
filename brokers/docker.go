package brokers

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The addresses that docker-compose.yml publishes.
const (
	dockerKafkaAddr   = "127.0.0.1:29092"
	dockerRabbitMQURL = "amqp://broadway:broadway@127.0.0.1:25673/"
)

// How long the Docker daemon may take to answer at all, and how long its services to become healthy, images included.
const (
	dockerProbeLimit = 10 * time.Second
	dockerStartLimit = 8 * time.Minute
)

func dockerKafka(t testing.TB) *KafkaBroker {
	t.Helper()
	composeUp(t, "kafka")
	return &KafkaBroker{addrs: []string{dockerKafkaAddr}, origin: "docker compose"}
}

func dockerRabbitMQ(t testing.TB) *RabbitMQBroker {
	t.Helper()
	composeUp(t, "rabbitmq")
	return &RabbitMQBroker{url: dockerRabbitMQURL, origin: "docker compose"}
}

// composeUp starts a service of docker-compose.yml, unless it runs, and waits until it is healthy.
func composeUp(t testing.TB, service string) {
	t.Helper()
	file, err := composeFile()
	if err != nil {
		t.Fatalf("brokers: BROADWAY_BROKERS=docker: %v", err)
	}
	if text, err := docker(dockerProbeLimit, "info", "--format", "{{.ServerVersion}}"); err != nil {
		t.Fatalf("brokers: BROADWAY_BROKERS=docker, but no Docker daemon answers: %v: %s", err, text)
	}
	if text, err := docker(dockerStartLimit, "compose", "--file", file, "up", "--detach", "--wait", service); err != nil {
		t.Fatalf("brokers: docker compose up %s: %v: %s", service, err, text)
	}
}

func docker(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.WaitDelay = time.Second
	text, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(text)), errors.Join(err, ctx.Err())
}

// composeFile finds docker-compose.yml in this module, which need not be the one whose tests run.
func composeFile() (string, error) {
	text, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gobroadway/gobroadway").Output()
	if err != nil {
		return "", errors.New("go list does not find the module github.com/gobroadway/gobroadway")
	}
	file := filepath.Join(strings.TrimSpace(string(text)), "docker-compose.yml")
	_, err = os.Stat(file)
	return file, err
}
