package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobroadway/gobroadway/brokers"
)

// The example is run as its reader runs it, and ended as its reader ends it.
func TestExampleRuns(t *testing.T) {
	broker := brokers.RabbitMQ(t)
	queue := broker.Queue(t)
	const n = 25
	var payloads [][]byte
	for i := range n {
		payloads = append(payloads, fmt.Appendf(nil, "order %02d", i))
	}
	broker.Publish(t, queue, payloads...)

	program := filepath.Join(t.TempDir(), "rabbitmq")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, "-url", broker.URL(), "-queue", queue)
	command.Stderr = t.Output()
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		got = append(got, lines.Text())
		if len(got) == n {
			if err := command.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	if err := command.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	slices.Sort(got)
	if len(got) != n || got[0] != "order 00 (8 bytes)" || got[n-1] != "order 24 (8 bytes)" {
		t.Errorf("printed %q", got)
	}
	if ready, unacked := broker.Depth(t, queue); ready+unacked != 0 {
		t.Errorf("%d ready and %d unacknowledged messages are left", ready, unacked)
	}
}

func TestExampleSaysWhatIsWrong(t *testing.T) {
	if err := run(t.Context(), "http://localhost", "orders", io.Discard); err == nil || !strings.Contains(err.Error(), "URL") {
		t.Errorf("run: %v", err)
	}
}
