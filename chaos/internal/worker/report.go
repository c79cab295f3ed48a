package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
)

// unfinished begins the names of reports that are being written.
const unfinished = ".unfinished-"

// reports is a folder of reports, one file a batch, that are there whole or not at all: each is written under another name, synced and renamed.
type reports struct {
	dir  string
	fail *failPoint
}

// openReports removes what a killed process has left.
func openReports(dir string, fail *failPoint) (*reports, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	return &reports{dir: dir, fail: fail}, err
}

// write writes a batch under a name, which must not be there.
func (r *reports) write(name string, batch []ledger.Observation) error {
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for _, entry := range batch {
		if err := lines.Encode(entry); err != nil {
			return err
		}
	}
	temp := filepath.Join(r.dir, unfinished+name)
	if err := r.fill(temp, text.Bytes()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, filepath.Join(r.dir, name)); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := r.sync(); err != nil {
		return err
	}
	r.fail.reach(AfterReport)
	return nil
}

// fill writes half of a file, then the rest.
func (r *reports) fill(name string, text []byte) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text[:len(text)/2])
	r.fail.reach(WithinReport)
	if err == nil {
		_, err = file.Write(text[len(text)/2:])
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// sync makes the names durable.
func (r *reports) sync() error {
	dir, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ReadReports reads a folder of reports as a stranger does, and adds how often each id stands in it. A file that is not whole is an error.
func ReadReports(dir string, into map[string]int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		if len(text) == 0 || text[len(text)-1] != '\n' {
			return fmt.Errorf("report %s is torn", entry.Name())
		}
		for line := range bytes.Lines(text) {
			var o ledger.Observation
			if err := json.Unmarshal(line, &o); err != nil {
				return fmt.Errorf("report %s: %w", entry.Name(), err)
			}
			into[o.ID]++
		}
	}
	return nil
}
