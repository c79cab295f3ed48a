package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/scenario"
)

// record is what is kept of a scenario, in the state folder.
type record struct {
	ID       string            `json:"id"`
	Title    string            `json:"title"`
	Severity string            `json:"severity"`
	Limit    string            `json:"limit"`
	Seed     uint64            `json:"seed"`
	Scale    float64           `json:"scale"`
	Commit   string            `json:"commit"`
	At       time.Time         `json:"at"`
	Seconds  float64           `json:"seconds"`
	Pass     bool              `json:"pass"`
	Error    string            `json:"error,omitempty"` // it could not be tried to the end
	Outcome  *scenario.Outcome `json:"outcome,omitempty"`
}

// one runs a scenario, unless its result is there.
func (o options) one(ctx context.Context, s scenario.Scenario, rigs *scenario.Rigs) (record, error) {
	file := filepath.Join(o.state, s.ID+".json")
	if !o.fresh {
		if old, err := readRecord(file); err == nil && old.Scale == o.scale && old.Error == "" {
			return old, nil
		}
	}
	dir := filepath.Join(o.state, s.ID)
	if err := os.RemoveAll(dir); err != nil {
		return record{}, err
	}
	r := record{
		ID: s.ID, Title: s.Title, Severity: s.Severity, Limit: s.Limit, Seed: o.seed, Scale: o.scale, Commit: commit(), At: time.Now().UTC(),
	}
	env, err := scenario.NewEnv(s.ID, o.seed, o.scale, dir, rigs, logf(s.ID))
	if err != nil {
		return r, err
	}
	fmt.Printf("chaos: %s %s\n", s.ID, s.Title)
	limited, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("the scenario takes more than %v", o.limit))
	defer cancel()
	outcome, err := s.Run(limited, env)
	r.Seconds, r.Outcome = time.Since(r.At).Seconds(), outcome
	if err != nil {
		r.Error = err.Error()
	} else {
		r.Pass = outcome.Pass()
	}
	if ctx.Err() != nil {
		return r, errors.New("interrupted")
	}
	tell(r)
	return r, writeRecord(file, r)
}

// tell prints how a scenario went.
func tell(r record) {
	verdict := "PASS"
	if !r.Pass {
		verdict = "FAIL"
	}
	fmt.Printf("chaos: %s %s after %.0f s\n", r.ID, verdict, r.Seconds)
	if r.Error != "" {
		fmt.Printf("         could not be tried to the end: %s\n", r.Error)
	}
	if r.Outcome == nil {
		return
	}
	for _, reason := range r.Outcome.Reasons() {
		fmt.Printf("         missed: %s\n", reason)
	}
	for _, note := range r.Outcome.Notes {
		fmt.Printf("         %s\n", note)
	}
}

// commit is what was built, with a + when files have changed since.
func commit() string {
	text, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	id := strings.TrimSpace(string(text))
	if changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(changed) > 0 {
		id += "+"
	}
	return id
}

func readRecord(file string) (record, error) {
	var r record
	text, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(text, &r)
}

func writeRecord(file string, r record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), fs.FileMode(0o600))
}

// printTable prints one line for each scenario.
func printTable(w io.Writer, records []record) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "id\tpass\tlost\tduplicated\tinversions\tcommit_ahead\tack_ahead\trecovery\trss\tseconds\ttitle")
	for _, r := range records {
		o := r.Outcome
		if o == nil {
			o = new(scenario.Outcome)
		}
		var recovery time.Duration
		for _, result := range o.Results {
			_, longest := result.Recovery()
			recovery = max(recovery, longest)
		}
		fmt.Fprintf(table, "%s\t%v\t%d\t%d\t%d\t%d\t%d\t%.1f s\t%d MiB\t%.0f\t%s\n", r.ID, r.Pass, o.Total(check.Lost), o.Total(check.Duplicates),
			o.Total(check.Inversions), o.Total(check.CommitAhead), o.Total(check.AckAhead), recovery.Seconds(), o.PeakRSS>>20, r.Seconds, r.Title)
	}
	return table.Flush()
}
