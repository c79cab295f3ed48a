//go:build unix

package brokers

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPortChild is not a test but what the one below runs in processes of their own: it claims the port of BROADWAY_CHILD_PORT.
func TestPortChild(t *testing.T) {
	text := os.Getenv("BROADWAY_CHILD_PORT")
	if text == "" {
		return
	}
	var port int
	if _, err := fmt.Sscan(text, &port); err != nil {
		t.Fatal(err)
	}
	claimed, err := claimPort(port)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("claimed", claimed)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the parent lets go
		t.Error(err)
	}
}

func TestAPortIsGivenToOneProcessOnce(t *testing.T) {
	t.Setenv("BROADWAY_BROKERS_DIR", t.TempDir())
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := claimPort(ports[0]); err != nil || again {
		t.Errorf("a port that nobody listens on yet is given out again: %v, %v", again, err)
	}
	if claimElsewhere(t, ports[0]) {
		t.Error("another process is given the same port")
	}
	for process := range 2 {
		if !claimElsewhere(t, 16_999) {
			t.Errorf("process %d is not given a port that nobody has, or had but ended", process)
		}
	}
}

// claimElsewhere reports whether a new process is given the port. That process has ended when it returns.
func claimElsewhere(t *testing.T, port int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPortChild$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), fmt.Sprintf("BROADWAY_CHILD_PORT=%d", port))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if claimed, ok := strings.CutPrefix(lines.Text(), "claimed "); ok {
			said = claimed
			_ = stdin.Close() // it may have ended already
		}
	}
	if err := cmd.Wait(); err != nil || said == "" {
		t.Fatalf("the child said %q and ended with %v", said, err)
	}
	return said == "true"
}
