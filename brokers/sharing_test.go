//go:build unix

package brokers_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// Two processes that ask at the same time get the same broker; it outlives the one that is killed, and ends after the last one
// that is killed as well, with all its files.
func TestProcessesShareOneBrokerUntilTheLastIsGone(t *testing.T) {
	needsBroker(t)
	for _, kind := range []string{"kafka", "rabbitmq"} {
		t.Run(kind, func(t *testing.T) {
			house := t.TempDir()
			env := []string{"BROADWAY_CHILD=" + kind, "BROADWAY_BROKERS_DIR=" + house, "BROADWAY_BROKERS_UNTIL="}
			first, second := startChild(t, env...), startChild(t, env...)
			address := first.address(t)
			if other := second.address(t); other != address {
				t.Fatalf("two brokers: %s and %s", address, other)
			}
			if running := instances(t, house); len(running) != 1 {
				t.Fatalf("instances: %v", running)
			}
			first.kill(t)
			third := startChild(t, env...)
			if other := third.address(t); other != address {
				t.Fatalf("after a kill a new broker: %s and %s", address, other)
			}
			if text := third.release(t); !strings.Contains(text, "PASS") {
				t.Fatalf("third: %s", text)
			}
			if !listens(address) {
				t.Fatal("the broker ended before its last user")
			}
			second.kill(t)
			eventually(t, "the broker ends", func() bool { return !listens(address) && len(instances(t, house)) == 0 })
		})
	}
}

// A broker that was started while BROADWAY_BROKERS_UNTIL named a process lives as long as that process, and no longer.
func TestABrokerOutlivesItsUsersWhileAProcessHoldsIt(t *testing.T) {
	needsBroker(t)
	house := t.TempDir()
	holder := startChild(t, "BROADWAY_CHILD=hold")
	env := []string{"BROADWAY_CHILD=kafka", "BROADWAY_BROKERS_DIR=" + house, "BROADWAY_BROKERS_UNTIL=" + strconv.Itoa(holder.cmd.Process.Pid)}
	user := startChild(t, env...)
	address := user.address(t)
	user.release(t)
	other := startChild(t, env...)
	if again := other.address(t); again != address {
		t.Fatalf("two brokers: %s and %s", address, again)
	}
	other.release(t)
	holder.kill(t)
	eventually(t, "the broker ends", func() bool { return len(instances(t, house)) == 0 })
}

// When the keeper itself is killed, the broker goes on for those who use it, and the next user removes it.
func TestTheNextUserRemovesWhatAKilledKeeperLeft(t *testing.T) {
	needsBroker(t)
	house := t.TempDir()
	env := []string{"BROADWAY_CHILD=kafka", "BROADWAY_BROKERS_DIR=" + house, "BROADWAY_BROKERS_UNTIL="}
	first := startChild(t, env...)
	address := first.address(t)
	killKeepers(t, instances(t, house)[0])
	first.release(t)
	if !listens(address) {
		t.Fatal("the broker ended with its keeper")
	}
	second := startChild(t, env...)
	if other := second.address(t); other == address {
		t.Fatal("joined a broker that nobody keeps")
	}
	if listens(address) {
		t.Fatal("the abandoned broker goes on")
	}
	second.release(t)
	eventually(t, "the broker ends", func() bool { return len(instances(t, house)) == 0 })
}

// killKeepers kills the shells of an instance, and what they wait in, but not the broker.
func killKeepers(t *testing.T, dir string) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, process := range processes {
		cwd, _ := os.Readlink(filepath.Join(process, "cwd")) // somebody else's, or gone meanwhile: not ours
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		command := strings.TrimSpace(string(name))
		if cwd != dir || command != "sh" && command != "cat" && command != "sleep" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed < 2 {
		t.Fatalf("killed %d processes of the keeper", killed)
	}
}

// A directory that others may write to would let them choose what runs.
func TestADirectoryOpenToOthersIsRefused(t *testing.T) {
	house := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(house, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(house, 0o777); err != nil {
		t.Fatal(err)
	}
	text := startChild(t, "BROADWAY_CHILD=rabbitmq", "BROADWAY_BROKERS_DIR="+house).release(t)
	if !strings.Contains(text, "nobody else can write to") || !strings.Contains(text, "FAIL") {
		t.Fatalf("accepted: %s", text)
	}
}
