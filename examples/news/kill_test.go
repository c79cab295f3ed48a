//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/brokers"
)

// program builds the command.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "news")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// A process that is killed in the middle of its work loses nothing, and its
// successor publishes nothing twice.
func TestAKilledRunIsContinuedWithoutLossOrRepetition(t *testing.T) {
	bin := program(t)
	for _, queue := range []string{queueNone, queueEmbedded} {
		t.Run(queue, func(t *testing.T) { killAndContinue(t, bin, "-queue", queue) })
	}
	t.Run(queueKafka, func(t *testing.T) {
		b := brokers.Kafka(t)
		s := killAndContinue(t, bin, "-queue", queueKafka, "-kafka", b.Addr())
		b.DeleteTopic(t, s.Topic)
		b.DeleteTopic(t, s.Topic+".dead")
	})
	t.Run(queueRabbitMQ, func(t *testing.T) {
		b := brokers.RabbitMQ(t)
		s := killAndContinue(t, bin, "-queue", queueRabbitMQ, "-rabbitmq", b.URL())
		dropQueues(t, b, s.Topic)
	})
}

func killAndContinue(t *testing.T, bin string, args ...string) summary {
	t.Helper()
	dir := t.TempDir()
	args = append(args, "-dir", dir, "-posts", "250", "-json", "-metrics", "")
	for kills := range 2 {
		cmd := exec.CommandContext(t.Context(), bin, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		published(t, filepath.Join(dir, "ledger.jsonl"), 60*(kills+1))
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("it was through before it was killed")
		}
	}
	out, err := exec.CommandContext(t.Context(), bin, args...).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var s summary
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	if s.Posts != 250 || s.Lost != 0 || s.Duplicates != 0 || s.Rows != 750 || s.Published["site"] != 250 {
		t.Errorf("%+v", s)
	}
	return s
}

// published waits until the stand-ins' ledger holds n publishings.
func published(t *testing.T, ledger string, n int) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		raw, err := os.ReadFile(ledger)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if bytes.Count(raw, []byte(`"kind":"effect"`)) >= n {
			return
		}
	}
}
