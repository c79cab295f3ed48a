package brokers_test

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

	"go.uber.org/goleak"

	"github.com/gobroadway/gobroadway/brokers"
)

// The harness itself must not leave anything running in a test's process.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestChild is not a test but what the tests below run in a process of its own: it does what BROADWAY_CHILD says, and nothing
// when that is not set.
func TestChild(t *testing.T) {
	switch os.Getenv("BROADWAY_CHILD") {
	case "kafka":
		kafka := brokers.Kafka(t)
		fmt.Println("address", kafka.Addr())
	case "rabbitmq":
		rabbit := brokers.RabbitMQ(t)
		fmt.Println("address", strings.Split(strings.Split(rabbit.URL(), "@")[1], "/")[0])
	case "hold":
	case "fail":
		rabbit := brokers.RabbitMQ(t)
		rabbit.Queue(t)
		t.Error("failed on purpose")
	default:
		return
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the parent lets go
		t.Error(err)
	}
}

// child is a process that runs TestChild.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output *bufio.Reader
}

// needsBroker skips tests whose children start brokers, like the harness does for tests that do so themselves.
func needsBroker(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a broker, and -short runs without")
	}
}

// startChild starts one. It ends when it is released, and with t at the latest.
func startChild(t *testing.T, env ...string) *child {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^TestChild$", "-test.v", "-test.timeout=5m")
	if slices.Contains(env, "BROADWAY_CHILD_SHORT=1") {
		cmd.Args = append(cmd.Args, "-test.short")
	}
	cmd.Env = append(os.Environ(), env...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = reader.Close()
	})
	return &child{cmd: cmd, stdin: stdin, output: bufio.NewReader(reader)}
}

// address reads on until the child says which broker it got.
func (c *child) address(t *testing.T) string {
	t.Helper()
	var before strings.Builder
	for {
		line, err := c.output.ReadString('\n')
		if address, found := strings.CutPrefix(line, "address "); found {
			return strings.TrimSpace(address)
		}
		before.WriteString(line)
		if err != nil {
			t.Fatalf("the child got no broker:\n%s", before.String())
		}
	}
}

// release lets the child end and returns what else it printed.
func (c *child) release(t *testing.T) string {
	t.Helper()
	if err := c.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c.output)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait() // a test that failed says so in its output
	return string(text)
}

// kill ends the child as the system would when it is out of memory.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()
}

// eventually polls what happens in other processes.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// instances lists what runs in a directory of brokers.
func instances(t *testing.T, house string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(house, "*-*"))
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}
