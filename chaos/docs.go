package main

import (
	"path/filepath"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/report"
)

// writeDocs takes every result in the state folder over into the files in dir. One that could not be tried to the end did not pass.
func writeDocs(state, dir string) error {
	names, err := filepath.Glob(filepath.Join(state, "*.json"))
	if err != nil {
		return err
	}
	var entries []report.Entry
	for _, name := range names {
		r, err := readRecord(name)
		if err != nil {
			return err
		}
		entries = append(entries, r.entry())
	}
	return report.Update(dir, entries...)
}

// entry is what readers want to know.
func (r record) entry() report.Entry {
	e := report.Entry{
		ID: r.ID, Title: r.Title, Severity: r.Severity, Limit: r.Limit, Pass: r.Pass,
		Seed: r.Seed, Scale: r.Scale, Commit: r.Commit, At: r.At, Secs: r.Seconds,
	}
	if r.Error != "" {
		e.Reasons = append(e.Reasons, "could not be tried to the end: "+r.Error)
	}
	o := r.Outcome
	if o == nil {
		return e
	}
	e.Reasons = append(e.Reasons, o.Reasons()...)
	e.Notes, e.Ledgers, e.RSSMiB = o.Notes, o.Hashes, float64(o.PeakRSS)/(1<<20)
	e.Lost, e.Phantom, e.Duplicated = o.Total(check.Lost), o.Total(check.Phantom), o.Total(check.Duplicates)
	e.Inversions, e.AckAhead = o.Total(check.Inversions), o.Total(check.AckAhead)
	e.CommitAhead = o.Total(check.CommitAhead) + o.Total(check.SamplesAhead)
	for _, result := range o.Results {
		_, longest := result.Recovery()
		e.RecoverySecs = max(e.RecoverySecs, longest.Seconds())
		e.Messages, e.Commits, e.Acks = e.Messages+result.Acked, e.Commits+result.Commits, e.Acks+result.Acks
	}
	return e
}
