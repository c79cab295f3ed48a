package measure

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// State is the rounds that were run, in a file that is only appended to: a run that was cut short goes on where it was.
type State struct {
	path   string
	Rounds []Round
}

// OpenState reads what is there; fresh forgets the rounds of the workloads for which it says so.
func OpenState(dir string, fresh func(workload string) bool) (*State, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &State{path: filepath.Join(dir, "rounds.jsonl")}
	file, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		var r Round
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", s.path, n, err)
		}
		if !fresh(r.Workload) {
			s.Rounds = append(s.Rounds, r)
		}
	}
	return s, lines.Err()
}

// Save writes what is left of an older state.
func (s *State) Save() error {
	next := s.path + ".new"
	file, err := os.Create(next)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(file)
	for _, r := range s.Rounds {
		err = errors.Join(err, encoder.Encode(r))
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(next, s.path)
}

// add appends one round.
func (s *State) add(r Round) error {
	file, err := os.OpenFile(s.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = json.NewEncoder(file).Encode(r)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	s.Rounds = append(s.Rounds, r)
	return nil
}

// done is how many rounds of a system there are, of so many messages.
func (s *State) done(workload, system string, messages int) int {
	n := 0
	for _, r := range s.Rounds {
		if r.Workload == workload && r.System == system && r.Messages == messages {
			n++
		}
	}
	return n
}
