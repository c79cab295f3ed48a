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
	broker := brokers.Kafka(t)
	topic, group := broker.Topic(t, 2), broker.Group(t)
	const n = 25
	var records []brokers.Record
	for i := range n {
		records = append(records, brokers.Record{Partition: i % 2, Key: fmt.Appendf(nil, "order %02d", i), Value: []byte("apples")})
	}
	broker.Produce(t, topic, records...)

	program := filepath.Join(t.TempDir(), "kafka")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, "-brokers", strings.Join(broker.Addrs(), ","), "-topic", topic, "-group", group)
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
	if len(got) != n || got[0] != "order 00 = apples" || got[n-1] != "order 24 = apples" {
		t.Errorf("printed %q", got)
	}
	if committed := broker.CommittedOffsets(t, group, topic); !slices.Equal(committed, broker.EndOffsets(t, topic)) {
		t.Errorf("committed %v of %v", committed, broker.EndOffsets(t, topic))
	}
}

func TestExampleSaysWhatIsWrong(t *testing.T) {
	if err := run(t.Context(), []string{"nowhere"}, "orders", "", io.Discard); err == nil || !strings.Contains(err.Error(), "Group") {
		t.Errorf("run: %v", err)
	}
}
