// Package ledger keeps what producers, consumers, faults and links did, as lines of append-only files that outlive the processes
// that wrote them.
//
// SIGKILL does not lose the page cache: one write(2) for each line is enough, and fsync would only slow down what is measured.
// Each writer has a file of its own, so that the torn last line of a killed process spoils no other's.
package ledger

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// MaxLine is the most that a line takes, in bytes, its end included: four times the 4,096 characters of metadata that a commit may have.
const MaxLine = 16 << 10

// Writer appends lines to a file of its own. It is safe for concurrent use.
type Writer struct {
	file *os.File
	torn atomic.Bool // the last write ended within its line
}

// Create makes a new file for lines of a kind in dir, which it makes as well. No two calls share a file, in whatever process.
func Create(dir, kind string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-%d-%d.jsonl", kind, os.Getpid(), Now())
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &Writer{file: file}, nil
}

// Append writes entry as one line by one write. Once it returns nil, the line outlives this process. Text that is not UTF-8 does
// not survive: give such keys in hex.
func (w *Writer) Append(entry any) error {
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	if len(line)+2 > MaxLine {
		return fmt.Errorf("ledger: a line of %d bytes, over %d", len(line), MaxLine)
	}
	line = append(line, '\n')
	if w.torn.Swap(false) {
		line = append([]byte{'\n'}, line...) // what was torn, by a full disk for one, stays a line of its own
	}
	if n, err := w.file.Write(line); err != nil {
		w.torn.Store(w.torn.Load() || n > 0)
		return err
	}
	return nil
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// Read returns all lines of a kind in dir, file by file in the order of their names, and how many were torn: lines that a
// process was writing when it died.
func Read[T any](dir, kind string) (entries []T, torn int, err error) {
	names, err := filepath.Glob(filepath.Join(dir, kind+"-*.jsonl"))
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		entries, torn, err = readFile(entries, torn, name)
		if err != nil {
			return nil, 0, err
		}
	}
	return entries, torn, nil
}

func readFile[T any](entries []T, torn int, name string) (_ []T, _ int, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			var entry T
			if json.Unmarshal(line, &entry) == nil {
				entries = append(entries, entry)
			} else {
				torn++
			}
		}
		if errors.Is(err, io.EOF) {
			return entries, torn, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// Hash is the SHA-256, in hex, over the names and contents of all ledgers in dir.
func Hash(dir string) (string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return "", err
	}
	all := sha256.New()
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		one := sha256.Sum256(content)
		fmt.Fprintf(all, "%s %x\n", filepath.Base(name), one)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// Sum is the SHA-256, in hex, of parts that stand in an order: a value alone; or key, value, and headers. It tells nil from empty
// and where a part ends.
func Sum(parts ...[]byte) string {
	hash := sha256.New()
	var length [8]byte
	for _, part := range parts {
		n := int64(len(part))
		if part == nil {
			n = -1
		}
		binary.BigEndian.PutUint64(length[:], uint64(n))
		hash.Write(length[:])
		hash.Write(part)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// Now is CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share and nobody can set. It never fails on a system
// that has the clock.
func Now() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic("ledger: no CLOCK_MONOTONIC: " + err.Error())
	}
	return now.Nano()
}
