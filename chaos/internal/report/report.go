// Package report keeps the results of chaos for readers: docs/reliability.json, and docs/reliability.md, which is generated from it.
package report

import (
	"bytes"
	_ "embed" // the page's template
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

// Names of the two files.
const (
	JSONFile     = "reliability.json"
	MarkdownFile = "reliability.md"
)

// An Entry is one scenario's latest result.
type Entry struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Severity string `json:"severity"`
	// Limit is the pass line, in words.
	Limit string `json:"limit"`
	Pass  bool   `json:"pass"`
	// Reasons say which lines were missed, and by how much.
	Reasons []string `json:"reasons,omitempty"`
	// Notes are measured figures and circumstances.
	Notes []string `json:"notes,omitempty"`

	Lost         int     `json:"lost"`
	Phantom      int     `json:"phantom"`
	Duplicated   int     `json:"duplicated"`
	Inversions   int     `json:"inversions"`
	CommitAhead  int     `json:"commit_ahead"`
	AckAhead     int     `json:"ack_ahead"`
	RecoverySecs float64 `json:"recovery_s"` // the longest, from the end of a fault to the next success
	RSSMiB       float64 `json:"rss_mb"`     // the most that a process had

	Messages int `json:"messages"` // acked to their producers
	Commits  int `json:"commits"`  // read off the wire
	Acks     int `json:"acks"`     // messages covered by acks that were read off the wire

	Seed   uint64    `json:"seed"`
	Scale  float64   `json:"scale"` // 1 is full size
	Commit string    `json:"commit"`
	At     time.Time `json:"at"`
	Secs   float64   `json:"seconds"`
	// Ledgers are the SHA-256 of the ledgers of each run.
	Ledgers []string `json:"ledgers"`
}

// File is docs/reliability.json.
type File struct {
	Entries []Entry `json:"scenarios"`
}

// Merge takes in newer results. A newer one replaces an older one of its id; only a smaller run that passes says less than a larger
// one, and is left out.
func (f *File) Merge(newer ...Entry) {
	for _, n := range newer {
		at := slices.IndexFunc(f.Entries, func(e Entry) bool { return e.ID == n.ID })
		switch {
		case at < 0:
			f.Entries = append(f.Entries, n)
		case n.At.Before(f.Entries[at].At):
		case n.Pass && n.Scale < f.Entries[at].Scale:
		default:
			f.Entries[at] = n
		}
	}
	slices.SortFunc(f.Entries, func(a, b Entry) int { return strings.Compare(order(a.ID), order(b.ID)) })
}

// order sorts B2 before B11.
func order(id string) string {
	letters := strings.TrimRight(id, "0123456789abcdefghijklmnopqrstuvwxyz")
	return fmt.Sprintf("%s%8s", letters, id[len(letters):]+strings.Repeat(" ", lowers(id)^1))
}

// lowers is 1 for an id that ends in a letter, which must not push its number aside.
func lowers(id string) int {
	if last := id[len(id)-1]; last >= 'a' && last <= 'z' {
		return 1
	}
	return 0
}

// Update merges newer results into the files in dir, which may not be there yet.
func Update(dir string, newer ...Entry) error {
	var f File
	name := filepath.Join(dir, JSONFile)
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, err)
	}
	f.Merge(newer...)
	page, err := f.Markdown()
	if err != nil {
		return err
	}
	text, err = json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(name, append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, MarkdownFile), page, 0o644),
	)
}

//go:embed reliability.md.tmpl
var page string

// Markdown is the page.
func (f *File) Markdown() ([]byte, error) {
	t, err := template.New(MarkdownFile).Funcs(template.FuncMap{"cell": cell, "size": size}).Parse(page)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, f)
	return out.Bytes(), err
}

// cell makes text fit into a table.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;").Replace(text)
}

// size says how large a run was.
func size(scale float64) string {
	if scale == 1 {
		return "full"
	}
	return fmt.Sprintf("%.3g", scale)
}

// Passed counts the entries that passed.
func (f *File) Passed() int {
	n := 0
	for _, e := range f.Entries {
		if e.Pass {
			n++
		}
	}
	return n
}

// Missed are the entries that did not pass.
func (f *File) Missed() []Entry {
	return slices.DeleteFunc(slices.Clone(f.Entries), func(e Entry) bool { return e.Pass })
}

// Scaled counts the entries of runs that were smaller than full.
func (f *File) Scaled() int {
	n := 0
	for _, e := range f.Entries {
		if e.Scale != 1 {
			n++
		}
	}
	return n
}

// Messages is how many were acked to their producers, over all.
func (f *File) Messages() int { return f.sum(func(e Entry) int { return e.Messages }) }

// Lost is how many messages were lost, over all.
func (f *File) Lost() int { return f.sum(func(e Entry) int { return e.Lost }) }

func (f *File) sum(of func(Entry) int) int {
	n := 0
	for _, e := range f.Entries {
		n += of(e)
	}
	return n
}

// Bound is the upper bound of the share of messages that is lost, at 95 % confidence, when none of n independent ones was: the rule
// of three. Empty when some were, or none was tried.
func (f *File) Bound() string {
	if n := f.Messages(); n > 0 && f.Lost() == 0 {
		return fmt.Sprintf("%.1e", 3/float64(n))
	}
	return ""
}
