package brokers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// How long a native broker may take from its start to its first answer, and how long it stays after its last user.
const (
	startLimit = 3 * time.Minute
	linger     = 5 * time.Second
	endLimit   = time.Minute // for a broker to exit when it was told to
)

// state is what a user must know of a running instance. It travels between processes as the file "ready".
type state struct {
	Key      string         // the kind, version and configuration: only the same key is shared
	Ports    map[string]int // by listener
	Node     string         // RabbitMQ's node name
	User     string
	Password string
}

// addr is where the named listener is reached.
func (s state) addr(listener string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Ports[listener]))
}

// A launcher knows how one kind of broker is configured, run and asked whether it is ready.
type launcher interface {
	// kind is "kafka" or "rabbitmq".
	kind() string
	// key tells apart instances that must not be shared.
	key() string
	// prepare writes what the broker needs into dir, which it has for itself.
	prepare(dir string) (state, error)
	// command is what runs the broker in the foreground in a prepared dir, and the environment that it adds.
	command(dir string, s state) (argv, env []string)
	// probe returns nil once the broker does its work. It is asked repeatedly.
	probe(ctx context.Context, dir string, s state) error
}

// exclusiveKey marks instances that are never joined.
const exclusiveKey = "exclusive"

// readState reads the file "ready" of an instance.
func readState(dir string) (state, error) {
	var s state
	text, err := os.ReadFile(filepath.Join(dir, "ready"))
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(text, &s)
	return s, err
}

// writeState publishes an instance: from here on others may join it.
func writeState(dir string, s state) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	draft := filepath.Join(dir, "ready.new")
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(dir, "ready"))
}

// awaitReady polls a broker that has just been started until it answers, exits, or ctx ends.
func awaitReady(ctx context.Context, l launcher, dir string, s state) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := l.probe(ctx, dir, s)
		if err == nil {
			return nil
		}
		if status, exited := exitStatus(dir); exited {
			return fmt.Errorf("%s ended while it started (status %s); the end of its log:\n%s", l.kind(), status, logTail(dir, 0))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w; the end of its log:\n%s", l.kind(), err, logTail(dir, 0))
		}
	}
}

// instance is one native broker as seen by a process that uses or owns it.
type instance struct {
	dir   string
	state state
	hold  *os.File // the writing end of users: the broker runs for as long as it is open
	alive *os.File // exclusive only: the reading end of users, so that a sweep lets a stopped instance be
	done  *os.File // ends when the keeper does
}

// leave ends the use. A shared broker lingers for others, an exclusive one ends.
func (in *instance) leave() error {
	return errors.Join(drop(&in.hold), drop(&in.alive), drop(&in.done))
}

// drop closes a file that is not needed any more, if it is open.
func drop(file **os.File) error {
	if *file == nil {
		return nil
	}
	err := (*file).Close()
	*file = nil
	return err
}

// end waits for the broker to exit after a signal, and then for its keeper. The directory stays, for the next run.
func (in *instance) end(signal os.Signal) error {
	if err := os.WriteFile(filepath.Join(in.dir, "keep"), nil, 0o600); err != nil {
		return err
	}
	pid, err := in.pid()
	if err != nil {
		return err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := in.awaitExit(); err != nil {
		return err
	}
	if err := drop(&in.hold); err != nil {
		return err
	}
	return in.awaitKeeper()
}

// pid is the broker's process.
func (in *instance) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(in.dir, "pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// awaitExit polls for the keeper's word that the broker has exited.
func (in *instance) awaitExit() error {
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, exited := exitStatus(in.dir); exited {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("the broker does not exit within %v", endLimit)
		}
	}
}

// awaitKeeper waits until the keeper has exited, which it does once nobody uses the instance.
func (in *instance) awaitKeeper() error {
	if err := in.done.SetReadDeadline(time.Now().Add(endLimit)); err != nil {
		return err
	}
	if _, err := in.done.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the keeper of the broker does not exit: %w", err)
	}
	return drop(&in.done)
}

// exitStatus tells whether the broker of an instance has ended, and how.
func exitStatus(dir string) (string, bool) {
	text, err := os.ReadFile(filepath.Join(dir, "exited"))
	return strings.TrimSpace(string(text)), err == nil && len(text) > 0
}

// logSize is how much the broker has logged so far.
func logSize(dir string) int64 {
	info, err := os.Stat(filepath.Join(dir, "broker.log"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// logTail returns the end of a broker's log, from offset on and at most 8 KiB of it.
func logTail(dir string, offset int64) string {
	const most = 8 << 10
	file, err := os.Open(filepath.Join(dir, "broker.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return "(the log is gone)"
	}
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	size := logSize(dir)
	text := make([]byte, min(most, max(0, size-offset)))
	n, _ := file.ReadAt(text, size-int64(len(text)))
	return string(text[:n])
}

// randomHex returns n random bytes as hexadecimal digits.
func randomHex(n int) string {
	random := make([]byte, n)
	rand.Read(random) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(random)
}

// freshName returns a name that starts with the test's own, for topics, queues, groups and virtual hosts.
func freshName(test string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, test)
	return clean[:min(len(clean), 80)] + "-" + randomHex(4)
}
